"""Indexes say at every event of random studies what a fresh look at all trials says."""

from __future__ import annotations

import random
from dataclasses import fields

import pytest

from tune_tasks import decide, indexes, retention
from tune_tasks.decide import Policy
from tune_tasks.events import Checkpointed, CheckpointRef, Judged, Proposal, Started
from tune_tasks.indexes import Lowest, Ranking
from tune_tasks.samplers.random import RandomSampler
from tune_tasks.schedulers.asha import ASHA
from tune_tasks.testing.histories import History, study_spec

SPACE = {"kind": {"type": "categorical", "choices": ["a", "b", "c", "d"]}, "size": {"type": "int", "low": 1, "high": 9}}
POLICY = Policy(RandomSampler(seed=1), ASHA(max_budget=9))


def decisions(state):
    """Everything that is decided with the help of an index; a copy of a state has none yet."""
    waiting = [*state.waiting.again, *state.waiting.new]
    return {
        "best": state.best and state.best.number,
        "waiting": waiting,
        "review": POLICY.scheduler.review(state, closing=False),
        "closing": POLICY.scheduler.review(state, closing=True),
        "advancing": [trial.number for trial in decide._advancing(state)],
        "discard": retention.discard(state, time=1.0),
        "tried": POLICY.sampler.propose(state, 3),
    }


class Player:
    """Does to a study what a driver and the steps do, in a random order."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        changes = {"budget": {"trials": 36}, "checkpoints": {"keep_last": 1, "keep_best": 2}}
        self.history = History(study_spec(SPACE, mode=self.random.choice(["min", "max"]), **changes))
        self.policy = POLICY

    def move(self):
        state, history = self.history.state, self.history
        doing = self.random.choice(["plan", "start", "report", "report", "save", "end", "decide", "go on", "discard"])
        queued, running = list(state.queue), list(state.running)
        if doing == "plan" and len(state.trials) < 30:
            count = self.random.randint(1, 4)
            history.plan([proposal.params for proposal in self.policy.sampler.propose(state, count)], 1)
        elif doing == "start" and queued:
            self.start(self.random.choice(queued))
        elif doing == "report" and running:
            self.report(self.random.choice(running))
        elif doing == "save" and running:
            self.save(self.random.choice(running))
        elif doing == "end" and running:
            self.end(self.random.choice(running))
        elif doing == "decide":
            self.judge(self.policy.scheduler.review(state, closing=False))
        elif doing == "go on":
            going = [trial.advance for trial in state.trials if trial.advance and trial.state == "paused"]
            history._planned([], [(advance.trial, advance.budget, advance.last) for advance in going])
        elif doing == "discard" and (event := retention.discard(state, time=history.time)):
            history.apply(event)

    def judge(self, decided):
        """Records decisions; who advances is in no batch before the next plan."""
        batch = f"batch-{len(self.history.events)}"
        about = {"key": f"{batch}/evaluate", "batch": batch, "done": False, "best": None, "value": None, "reason": ""}
        self.history.apply(Judged(**about, advances=tuple(decided), prunes=(), time=self.history.time))

    def start(self, number):
        """From the newest checkpoint, so that steps may be reported again, with other values."""
        trial = self.history.state.trials[number]
        step = trial.checkpoint[0] if trial.checkpoint else 0
        attempt = trial.attempts + 1
        self.history.apply(Started(trial=number, attempt=attempt, step=step, worker="w", time=self.history.time))
        self.at = {**getattr(self, "at", {}), number: step}

    def report(self, number):
        step = self.at[number] = self.at[number] + 1
        self.history.report(number, self.random.choice([0.1, 0.2, 0.3, self.random.random()]), step=step)

    def save(self, number):
        trial, step = self.history.state.trials[number], self.at[number]
        if step:
            reference = CheckpointRef(key=f"ckpt/{self.random.randint(0, 9)}", digest="", size=0)
            about = {"trial": number, "attempt": trial.attempts, "step": step, "time": self.history.time}
            self.history.apply(Checkpointed(**about, checkpoint=reference))

    def end(self, number):
        trial = self.history.state.trials[number]
        outcome = self.random.choice(["lost", "failed", "carried"])
        if trial.target is not None and self.at[number] >= trial.target:
            outcome = "reached"
        self.history.end(number, outcome, retry=outcome == "lost" or self.random.random() < 0.5)


@pytest.mark.parametrize("seed", range(8))
def test_an_index_says_what_a_fresh_one_would(seed):
    player = Player(seed)
    for _ in range(250):
        player.move()
        state = player.history.state
        assert decisions(state) == decisions(state.copy())
        assert [*state.waiting.again] == [n for n in state.queue if state.trials[n].attempts]
        tried = [trial.params for trial in state.trials]
        assert not any(proposal.params in tried for proposal in POLICY.sampler.propose(state, 3))
        values = [(state.sign * trial.value, trial.number) for trial in state.ranked()]
        assert (state.best.number if state.best else None) == (min(values)[1] if values else None)
    assert any(trial.attempts > 1 for trial in state.trials)


def test_a_trial_that_is_proposed_and_not_yet_to_run_is_known():
    history = History(study_spec(SPACE))
    first = POLICY.sampler.propose(history.state, 1)
    history._planned([Proposal(number=0, params=first[0].params, reason="made up by a test")], [])
    assert POLICY.sampler.propose(history.state, 36 - 1)[-1].number == 35
    assert len(POLICY.sampler.propose(history.state, 99)) == 35


def test_an_index_that_misses_a_change_is_found_out(monkeypatch):
    monkeypatch.setattr(indexes.Changes, "note", lambda self, number: None)
    with pytest.raises(AssertionError):
        test_an_index_says_what_a_fresh_one_would(0)


def test_the_lowest_are_known_though_values_change():
    drawn, known, lowest = random.Random(1), {}, Lowest()
    for _ in range(3000):
        key, value = drawn.randrange(40), drawn.choice([None, 0.0, 1.0, drawn.random()])
        lowest.put(key, value)
        known.pop(key, None)
        if value is not None:
            known[key] = value
        count = drawn.choice([1, 3, None])
        ordered = [key for _, key in sorted((value, key) for key, value in known.items())]
        assert lowest.first(count) == ordered[:count]
    assert len(lowest._heap) <= 2 * 40 + 100


def test_a_ranking_keeps_its_order_though_values_change():
    drawn, known, ranking = random.Random(2), {}, Ranking()
    for _ in range(3000):
        key, value = drawn.randrange(40), drawn.choice([None, 0.0, 1.0, drawn.random()])
        ranking.put(key, value)
        known.pop(key, None)
        if value is not None:
            known[key] = value
        ordered = [key for _, key in sorted((value, key) for key, value in known.items())]
        assert list(ranking) == ordered
        assert [ranking.rank(key) for key in ordered] == list(range(1, len(ordered) + 1))


def test_what_is_kept_beside_a_state_is_no_part_of_it():
    history = History(study_spec(SPACE))
    history.plan([{"kind": "a", "size": 1}])
    other = history.state.copy()
    assert "changes" not in {field.name for field in fields(other)}
    assert other.changes is not history.state.changes
    history.run(0, [0.5])
    assert (other.best, history.state.best.number) == (None, 0)
