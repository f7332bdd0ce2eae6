"""Decisions are functions of the state: what goes into a batch, when a study is done, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tune_tasks import decide
from tune_tasks.decide import Place, Policy, batch_size, could_go_on, judge, plan, retries, spent
from tune_tasks.events import Created, Ended, Event, Judged, Opened, Planned, Proposal, Reports, Started
from tune_tasks.samplers.random import RandomSampler
from tune_tasks.schedulers.asha import ASHA
from tune_tasks.schedulers.none import NoScheduler
from tune_tasks.spec import StudySpec
from tune_tasks.study import StudyState

SPEC: dict[str, Any] = {
    "name": "s",
    "objective": "m:f",
    "metric": "loss",
    "mode": "min",
    "space": {"x": {"type": "float", "low": 0, "high": 1}},
    "budget": {"trials": 6, "concurrency": 2},
}
RANDOM = Policy(RandomSampler(), NoScheduler())
HALVING = Policy(RandomSampler(), ASHA(min_budget=1, max_budget=9, reduction_factor=3))


class OneShot(RandomSampler):
    """A sampler that runs dry after one proposal."""

    def propose(self, history: StudyState, count: int) -> list[Proposal]:
        return super().propose(history, min(count, 1 - len(history.trials)))


def place(number: int = 0) -> Place:
    return Place(f"main-{number:04d}/sample", "main", number, f"main-{number:04d}")


def begin(**changes: Any) -> StudyState:
    return fold(StudyState(), Created(study="1", spec=StudySpec(**{**SPEC, **changes}).record(), folder=None, time=0.0))


def fold(state: StudyState, *events: Event) -> StudyState:
    for event in events:
        state.apply(event)
    return state


def ran(state: StudyState, trial: int, *values: float, outcome: Any = "reached") -> None:
    """Lets a queued trial run once and report `values`."""
    attempt, done = state.trials[trial].attempts + 1, state.trials[trial].budget
    rows = range(len(values))
    fold(
        state,
        Started(trial=trial, attempt=attempt, step=0, worker="w", time=1.0),
        Reports(
            trial=[trial for _ in rows],
            attempt=[attempt for _ in rows],
            step=[done + 1 + row for row in rows],
            time=[1.0 for _ in rows],
            metrics={"loss": list(values)},
        ),
        Ended(trial=trial, attempt=attempt, outcome=outcome, time=2.0),
    )


def planned(state: StudyState, policy: Policy, number: int = 0, count: int = 3, *, carry: bool = True) -> Planned:
    event = plan(state, policy, place(number), count=count, carry=carry, time=0.0)
    state.apply(event)
    return event


def judged(state: StudyState, policy: Policy, number: int = 0) -> Judged:
    event = judge(state, policy, place(number), time=0.0)
    state.apply(event)
    return event


def test_a_batch_is_a_queue_of_four_times_the_concurrency_unless_the_spec_says() -> None:
    assert batch_size(begin().spec) == 8
    assert batch_size(begin(execution={"batch": 3}).spec) == 3


def test_a_batch_never_goes_beyond_the_trials_of_the_budget() -> None:
    state = begin()
    assert len(planned(state, RANDOM, 0, 4).proposals) == 4
    assert len(planned(state, RANDOM, 1, 9).proposals) == 2
    assert len(planned(state, RANDOM, 2, 9).proposals) == 0


def test_the_same_state_gives_the_same_batch() -> None:
    state = begin()
    assert plan(state, RANDOM, place(), count=3, carry=True, time=0.0) == plan(
        state, RANDOM, place(), count=3, carry=True, time=0.0
    )


def test_what_was_left_and_what_advances_comes_before_new_trials() -> None:
    state = begin()
    planned(state, HALVING, 0, 4)
    for trial, value in enumerate((0.3, 0.1, 0.2)):
        ran(state, trial, value)
    verdict = judged(state, HALVING)
    assert [advance.trial for advance in verdict.advances] == [1]
    batch = planned(state, HALVING, 1, 3)
    assert [(a.trial, a.budget) for a in batch.assignments] == [(3, 1), (1, 3), (4, 1)]


def test_topping_a_batch_up_leaves_the_waiting_trials_where_they_are() -> None:
    state = begin()
    planned(state, RANDOM, 0, 2)
    assert [a.trial for a in planned(state, RANDOM, 0, 2, carry=False).assignments] == [2, 3]


def test_a_trial_that_is_carried_over_says_why() -> None:
    state = begin()
    planned(state, RANDOM)
    ran(state, 0, 0.5, outcome="carried")
    again = next(a for a in planned(state, RANDOM, 1).assignments if a.trial == 0)
    assert again.reason == "goes on after step 1: paused at the end of a step"


def test_a_study_is_done_when_every_trial_is_over_and_says_so() -> None:
    state = begin()
    planned(state, RANDOM, 0, 6)
    for trial in range(5):
        ran(state, trial, 0.5, outcome="returned")
    assert not judged(state, RANDOM).done
    ran(state, 5, 0.1, outcome="returned")
    verdict = judged(state, RANDOM)
    assert (verdict.done, verdict.reason, verdict.best, verdict.value) == (True, "all 6 trials are over", 5, 0.1)


def test_the_last_judgement_prunes_every_paused_trial_with_its_rank() -> None:
    state = begin(budget={"trials": 3})
    planned(state, HALVING)
    for trial, value in enumerate((0.3, 0.1, 0.2)):
        ran(state, trial, value)
    verdict = judged(state, HALVING)
    prunes = list(verdict.prunes)
    for number, values in enumerate(([0.1] * 2, [0.1] * 6), 1):
        assert [advance.trial for advance in verdict.advances] == [1]
        planned(state, HALVING, number)
        ran(state, 1, *values)
        verdict = judged(state, HALVING, number)
        prunes += verdict.prunes
    assert verdict.done
    assert [prune.trial for prune in prunes] == [2, 0]
    assert all("rank" in prune.reason for prune in prunes)
    assert [trial.state for trial in state.trials] == ["pruned", "completed", "pruned"]


def test_a_sampler_that_runs_dry_ends_the_study() -> None:
    state, policy = begin(), Policy(OneShot(), NoScheduler())
    assert planned(state, policy).exhausted
    ran(state, 0, 0.5, outcome="returned")
    assert judged(state, policy).reason == "the sampler has nothing more to try after 1 trials"


def test_used_up_wall_time_ends_the_study_and_starts_nothing_new() -> None:
    state = begin(budget={"trials": 6, "wall_time": "10s"})
    fold(state, Opened(epoch=1, owner="a", time=0.0))
    planned(state, RANDOM)
    assert spent(state) is None
    fold(state, Started(trial=0, attempt=1, step=0, worker="w", time=11.0))
    assert spent(state) == "the wall time of 10 s is used up"
    assert planned(state, RANDOM, 1, 9).proposals == ()
    assert judged(state, RANDOM).done
    assert not could_go_on(state, RANDOM)


def test_failures_and_lost_workers_are_counted_apart() -> None:
    state = begin(retry={"failures": 1, "infrastructure": 2})
    planned(state, RANDOM)
    for outcome, expected in (("failed", [True, False]), ("lost", [True, True, False])):
        trial = 0 if outcome == "failed" else 1
        for again in expected:
            assert retries(state, state.trials[trial], outcome) is again
            attempt = state.trials[trial].attempts + 1
            fold(
                state,
                Started(trial=trial, attempt=attempt, step=0, worker="w", time=1.0),
                Ended.model_validate(
                    {"trial": trial, "attempt": attempt, "outcome": outcome, "retry": again, "time": 1.0}
                ),
            )
    assert [state.trials[0].state, state.trials[1].state] == ["failed", "failed"]


def test_a_verdict_with_more_decisions_than_a_segment_holds_leaves_some_for_the_next(monkeypatch: Any) -> None:
    monkeypatch.setattr(decide, "DECISIONS", 2)
    state = begin(budget={"trials": 4})
    planned(state, HALVING, 0, 4)
    for trial in range(4):
        ran(state, trial, 0.5 + trial)
    state.trials[0] = replace(state.trials[0], state="completed")
    first = judged(state, HALVING)
    assert (len(first.prunes), first.done) == (2, False)
    second = judged(state, HALVING)
    assert (len(second.prunes), second.done) == (1, True)
    assert not any(trial.state == "paused" for trial in state.trials)
