"""Random search: what is particular to it beside the contract of all samplers."""

from __future__ import annotations

import pytest

from tune_tasks.samplers.random import RandomSampler
from tune_tasks.testing.histories import History, study_spec
from tune_tasks.testing.samplers import MIXED, SamplerContract, tried


class TestRandomSampler(SamplerContract):
    @pytest.fixture
    def sampler(self):
        return RandomSampler(seed=3)


def test_a_trial_depends_on_its_number_and_not_on_the_batch():
    history = tried(MIXED, 5)
    together = RandomSampler(seed=3).propose(history.state, 4)
    first = RandomSampler(seed=3).propose(history.state, 1)
    history.plan([first[0].params])
    assert [*first, *RandomSampler(seed=3).propose(history.state, 3)] == together


def test_another_seed_draws_other_configurations():
    history = tried(MIXED, 0).state
    assert RandomSampler(seed=1).propose(history, 1)[0].params != RandomSampler(seed=2).propose(history, 1)[0].params


def test_draws_are_uniform_on_the_declared_scale():
    space = {
        "rate": {"type": "float", "low": 1e-4, "high": 1, "log": True},
        "n": {"type": "int", "low": 1, "high": 4},
    }
    made = RandomSampler().propose(History(study_spec(space)).state, 4000)
    decades = [sum(10.0**k <= p.params["rate"] < 10.0 ** (k + 1) for p in made) for k in range(-4, 0)]
    assert all(900 < count < 1100 for count in decades)
    assert all(900 < sum(p.params["n"] == n for p in made) < 1100 for n in (1, 2, 3, 4))


def test_the_last_configurations_of_a_large_finite_space_are_found():
    space = {"n": {"type": "int", "low": 1, "high": 3000}}
    history = History(study_spec(space))
    history.plan([{"n": n} for n in range(1, 3001) if n not in {17, 2048}])
    made = RandomSampler().propose(history.state, 5)
    assert sorted(proposal.params["n"] for proposal in made) == [17, 2048]
    assert {proposal.reason for proposal in made} == {"random among the few that are left"}


def test_a_continuous_parameter_that_is_not_always_there_does_not_stop_the_search():
    space = {
        "kind": {"type": "categorical", "choices": ["plain", "tuned"]},
        "rate": {"type": "float", "low": 0, "high": 1, "when": {"kind": "tuned"}},
    }
    made = RandomSampler().propose(History(study_spec(space)).state, 50)
    assert [proposal.params for proposal in made].count({"kind": "plain"}) == 1
    assert len(made) == 50


def test_true_and_1_are_two_choices():
    space = {"x": {"type": "categorical", "choices": [True, 1, 1.0]}}
    made = RandomSampler().propose(History(study_spec(space)).state, 9)
    assert sorted(repr(proposal.params["x"]) for proposal in made) == ["1", "1.0", "True"]
