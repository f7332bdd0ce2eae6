"""TPE: it learns, it reads the history as Optuna means it, and it leaves nothing behind."""

from __future__ import annotations

import logging
import math
import statistics
import subprocess
import sys

import pytest

from tune_tasks.decide import Policy
from tune_tasks.samplers import tpe
from tune_tasks.samplers.optuna_study import OptunaStudy
from tune_tasks.samplers.random import RandomSampler
from tune_tasks.samplers.tpe import TPESampler
from tune_tasks.schedulers.none import NoScheduler
from tune_tasks.testing.histories import History, study_spec
from tune_tasks.testing.samplers import MIXED, SamplerContract, tried
from tune_tasks.testing.simulation import Simulation

BOWL = {
    "x": {"type": "float", "low": -5, "high": 5},
    "rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "kind": {"type": "categorical", "choices": ["a", "b", "c"]},
    "n": {"type": "int", "low": 1, "high": 9},
}


def bowl(params, _step=1):
    bonus = {"a": 1.0, "b": 0.0, "c": 1.0}[params["kind"]]
    return (params["x"] - 2) ** 2 + (math.log10(params["rate"]) + 3) ** 2 + bonus + abs(params["n"] - 4) / 4


class TestTPESampler(SamplerContract):
    @pytest.fixture
    def sampler(self):
        return TPESampler(seed=3)


class TestTPESamplerFromTheFirstTrialOn(SamplerContract):
    @pytest.fixture
    def sampler(self):
        return TPESampler(seed=3, startup=1)


def best_of(sampler, seed, mode="min"):
    sign = 1 if mode == "min" else -1
    spec = study_spec(BOWL, mode=mode, budget={"trials": 60})
    policy = Policy(sampler, NoScheduler(max_budget=1))
    state = Simulation(spec, policy, lambda params, _: sign * bowl(params), seed=seed).run()
    return sign * state.best.value


@pytest.mark.parametrize("mode", ["min", "max"])
def test_it_finds_more_than_random_search(mode):
    ours = statistics.mean(best_of(TPESampler(seed=seed), seed, mode) for seed in range(4))
    chance = statistics.mean(best_of(RandomSampler(seed=seed), seed, mode) for seed in range(4))
    assert ours < 0.5 * chance


def test_it_is_random_until_enough_trials_have_a_result():
    history = tried(MIXED, 0)
    sampler = TPESampler(seed=3, startup=4)
    for number in range(4):
        (made,) = sampler.propose(history.state, 1)
        assert made.reason == "start-up: random until 4 trials have a result"
        assert made.params == RandomSampler(seed=3).propose(history.state, 1)[0].params
        history.plan([made.params])
        history.run(number, [1.0], "returned")
    assert sampler.propose(history.state, 1)[0].reason == "expected improvement over 4 trials (TPE)"


def test_failed_trials_do_not_end_the_start_up():
    history = tried(MIXED, 0)
    for number in history.plan([{}] * 30):
        history.run(number, [], "failed")
    assert "start-up" in TPESampler().propose(history.state, 1)[0].reason


class Shown(OptunaStudy):
    """Keeps what is shown, so that a test can look at it as Optuna does."""

    last: Shown

    def __init__(self, *arguments):
        super().__init__(*arguments)
        Shown.last = self


@pytest.fixture
def shown(monkeypatch):
    monkeypatch.setattr(tpe, "OptunaStudy", Shown)

    def look(history):
        TPESampler(startup=1).propose(history.state, 1)
        return {trial.number: trial for trial in Shown.last._trials[:-1]}

    return look


def test_optuna_sees_each_trial_as_what_became_of_it(shown):
    history = History(study_spec(BOWL, mode="max", budget={"trials": 20}))
    params = RandomSampler().propose(history.state, 7)
    completed, paused, pruned, failed, running, queued, advanced = history.plan([p.params for p in params], budget=2)
    for number in (completed, paused, pruned, advanced):
        history.run(number, [3.0, 1.0])
    history.prune(pruned)
    history.decide([_advance(completed, 3, last=True), _advance(advanced, 4)])
    history.run(completed, [2.0])
    history.run(failed, [9.0], "failed")
    history.start(running)
    history.report(running, 9.0)
    seen = shown(history)
    assert failed not in seen
    assert (seen[completed].state.name, seen[completed].value) == ("COMPLETE", -3.0)
    for number in (paused, pruned, advanced):
        assert (seen[number].state.name, seen[number].intermediate_values) == ("PRUNED", {2: -3.0})
    for number in (running, queued):
        assert (seen[number].state.name, seen[number].intermediate_values) == ("RUNNING", {})


def _advance(trial, budget, *, last=False):
    from tune_tasks.events import Advance

    return Advance(trial=trial, budget=budget, last=last, reason="test")


def test_of_many_trials_it_sees_the_best_and_the_newest(shown):
    history = tried(BOWL, 0)
    params = RandomSampler().propose(history.state, 150)
    for number in history.plan([p.params for p in params]):
        history.run(number, [float(number)], "returned")
    TPESampler(startup=1, window=100).propose(history.state, 1)
    numbers = sorted(trial.number for trial in Shown.last._trials[:-1])
    assert numbers == [*range(25), *range(75, 150)]


def test_parameters_under_one_condition_are_modelled_together(monkeypatch):
    from optuna.samplers import TPESampler as Optunas

    asked = []
    original = Optunas.sample_relative
    monkeypatch.setattr(
        Optunas, "sample_relative", lambda s, t, f, space: asked.append(sorted(space)) or original(s, t, f, space)
    )
    space = {
        "kind": {"type": "categorical", "choices": ["p", "q"]},
        "x": {"type": "float", "low": 0, "high": 1},
        "only": {"type": "categorical", "choices": ["one"]},
        "q.a": {"type": "float", "low": 0, "high": 1, "when": {"kind": "q"}},
        "q.b": {"type": "int", "low": 1, "high": 5, "when": {"kind": "q"}},
    }
    history = History(study_spec(space))
    for number in range(12):
        (made,) = TPESampler(startup=1).propose(history.state, 1)
        history.plan([made.params])
        history.run(number, [0.0 if made.params["kind"] == "q" else 1.0], "returned")
    assert {tuple(names) for names in asked} == {("kind", "x"), ("q.a", "q.b")}


def test_a_batch_spreads_out():
    history = tried(BOWL, 0)
    params = RandomSampler().propose(history.state, 40)
    for number in history.plan([p.params for p in params]):
        history.run(number, [bowl(params[number].params)], "returned")
    made = [proposal.params["x"] for proposal in TPESampler().propose(history.state, 8)]
    assert len(set(made)) == 8


def test_a_wide_range_of_whole_numbers_is_sampled_to_its_ends():
    space = {"n": {"type": "int", "low": 0, "high": 5000, "step": 5}}
    history = History(study_spec(space))
    for number in range(60):
        (made,) = TPESampler(startup=5).propose(history.state, 1)
        history.plan([made.params])
        history.run(number, [5000 - made.params["n"]], "returned")
    values = [trial.params["n"] for trial in history.state.trials]
    assert all(value % 5 == 0 and 0 <= value <= 5000 for value in values)
    assert max(values) == 5000


def test_optuna_says_nothing_and_its_loggers_stay_as_they_are(capfd):
    before = logging.getLogger("optuna").level
    TPESampler().propose(tried(MIXED, 40).state, 2)
    assert logging.getLogger("optuna").level == before
    assert capfd.readouterr() == ("", "")


def test_optuna_is_not_loaded_before_it_is_used():
    code = "import sys, tune_tasks.samplers.tpe as t; t.TPESampler(); print(any('optuna' == m for m in sys.modules))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
