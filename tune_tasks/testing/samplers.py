"""What every sampler must pass. Inherit `SamplerContract` and give the fixture `sampler`.

class TestMine(SamplerContract):
    @pytest.fixture
    def sampler(self):
        return MySampler(seed=1)
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tune_tasks.events import Proposal
from tune_tasks.samplers import Sampler
from tune_tasks.study import StudyState
from tune_tasks.testing.fresh import ask_in_a_fresh_process
from tune_tasks.testing.histories import History, study_spec

MIXED: dict[str, Any] = {
    "rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5},
    "momentum": {"type": "float", "low": 0.0, "high": 0.9, "step": 0.1},
    "hidden": {"type": "int", "low": 16, "high": 512, "log": True},
    "batch": {"type": "int", "low": 32, "high": 256, "step": 32},
    "activation": {"type": "categorical", "choices": ["relu", "tanh", None]},
    "bias": {"type": "categorical", "choices": [True, False]},
    "epochs": 27,
}
CONDITIONAL: dict[str, Any] = {
    "model": {"type": "categorical", "choices": ["linear", "forest", "network"]},
    "forest.trees": {"type": "int", "low": 1, "high": 16, "log": True, "when": {"model": "forest"}},
    "forest.depth": {"type": "grid", "choices": [3, 6, 9], "when": {"model": "forest"}},
    "network.layers": {"type": "int", "low": 1, "high": 3, "when": {"model": "network"}},
    "network.skip": {"type": "float", "low": 0.0, "high": 1.0, "when": {"model": "network", "network.layers": [2, 3]}},
    "l2": {"type": "float", "low": 1e-6, "high": 1.0, "log": True, "when": {"model": ["linear", "network"]}},
}
FINITE: dict[str, Any] = {
    "model": {"type": "categorical", "choices": ["small", "large"]},
    "depth": {"type": "int", "low": 1, "high": 3, "when": {"model": "large"}},
    "flag": {"type": "categorical", "choices": [True, False]},
}
"""Eight configurations."""
SPACES = pytest.mark.parametrize("space", [MIXED, CONDITIONAL], ids=["mixed", "conditional"])


def tried(space: dict[str, Any], count: int, seed: int = 0) -> History:
    """A study with `count` random trials: completed, pruned, paused, failed, running and waiting ones in turn."""
    history = History(study_spec(space, budget={"trials": 100_000}))
    draw = random.Random(seed)  # noqa: S311  # a test
    numbers = history.plan([_draw(history.state, draw) for _ in range(count)], budget=3, last=True)
    for number in numbers[: count - min(2, count // 4)]:
        history.start(number)
        values = [1 / (number + step + 2) + draw.random() for step in range(3)]
        match number % 8:
            case 3:
                history.end(number, "failed")
            case 5:
                history.report(number, *values[:2])
                history.end(number, "carried")
            case 6 | 7:
                history.report(number, *values[:1])
                history.end(number, "returned")
            case _:
                history.report(number, *values)
                history.end(number)
    return history


class SamplerContract:
    """Proposals lie in the space, are new, plain and numbered, and depend on nothing but seed and history."""

    @pytest.fixture
    def sampler(self) -> Sampler:
        """The sampler under test, with a fixed seed."""
        raise NotImplementedError("give your sampler in the fixture `sampler`")

    def test_its_options_are_frozen_and_an_unknown_one_is_refused(self, sampler: Sampler) -> None:
        assert isinstance(sampler, BaseModel)
        assert sampler.model_config.get("frozen")
        with pytest.raises(ValidationError):
            type(sampler)(**sampler.model_dump(), no_such_option=1)
        assert all(field.description for field in type(sampler).model_fields.values())

    @SPACES
    @pytest.mark.parametrize("count", [0, 1, 40])
    def test_it_proposes_inside_the_space(self, sampler: Sampler, space: dict[str, Any], count: int) -> None:
        history = tried(space, count).state
        for proposal in sampler.propose(history, 8):
            assert history.spec.space.problems(proposal.params) == []

    @SPACES
    def test_every_branch_of_a_condition_is_proposed(self, sampler: Sampler, space: dict[str, Any]) -> None:
        seen = {name for proposal in self._many(sampler, space, 60) for name in proposal.params}
        assert seen == set(study_spec(space).space)

    @SPACES
    @pytest.mark.parametrize("count", [0, 40])
    def test_it_proposes_as_many_as_asked_numbered_on(
        self, sampler: Sampler, space: dict[str, Any], count: int
    ) -> None:
        history = tried(space, count).state
        for asked in (1, 7):
            proposals = sampler.propose(history, asked)
            assert [proposal.number for proposal in proposals] == list(range(count, count + asked))
        assert sampler.propose(history, 0) == []

    def test_every_proposal_says_why(self, sampler: Sampler) -> None:
        for count in (0, 40):
            assert all(proposal.reason.strip() for proposal in sampler.propose(tried(MIXED, count).state, 4))

    @SPACES
    @pytest.mark.parametrize("count", [0, 40])
    def test_no_two_proposals_of_a_batch_are_the_same(
        self, sampler: Sampler, space: dict[str, Any], count: int
    ) -> None:
        assert _distinct(sampler.propose(tried(space, count).state, 24))

    def test_a_finite_space_is_used_up_without_a_repeat(self, sampler: Sampler) -> None:
        proposals = self._many(sampler, FINITE, 30)
        assert _distinct(proposals)
        assert len(proposals) == 8

    def test_what_was_given_to_be_tried_first_is_not_proposed_again(self, sampler: Sampler) -> None:
        start = [{"model": "large", "flag": False, "depth": 2}, {"model": "small", "flag": True}]
        proposals = self._many(sampler, FINITE, 30, start)
        assert _distinct(proposals)
        assert len(proposals) == 6
        assert all(proposal.params not in start for proposal in proposals)

    @SPACES
    def test_the_same_history_gives_the_same_proposals_in_a_fresh_process(
        self, sampler: Sampler, space: dict[str, Any]
    ) -> None:
        history = tried(space, 40)
        here = [proposal.model_dump(mode="json") for proposal in sampler.propose(history.state, 6)]
        assert isinstance(sampler, BaseModel)
        assert ask_in_a_fresh_process(sampler, history.events, "propose", count=6) == here

    def test_another_history_in_between_changes_nothing(self, sampler: Sampler) -> None:
        history, other = tried(MIXED, 40, seed=1), tried(CONDITIONAL, 41, seed=2)
        before = sampler.propose(history.state, 3)
        sampler.propose(other.state, 3)
        assert sampler.propose(history.state, 3) == before

    @SPACES
    def test_values_are_plain_json(self, sampler: Sampler, space: dict[str, Any]) -> None:
        for proposal in sampler.propose(tried(space, 40).state, 8):
            assert all(type(value) in {bool, int, float, str, type(None)} for value in proposal.params.values())
            assert json.loads(json.dumps(proposal.params)) == proposal.params

    @SPACES
    @pytest.mark.parametrize("outcome", ["failed", "pruned", "running", "waiting"])
    def test_it_goes_on_whatever_became_of_the_trials(
        self, sampler: Sampler, space: dict[str, Any], outcome: str
    ) -> None:
        history = _all(space, 20, outcome)
        assert len(sampler.propose(history.state, 4)) == 4

    def test_it_maximises_too(self, sampler: Sampler) -> None:
        history = History(study_spec(MIXED, mode="max"))
        for number in history.plan([_draw(history.state, random.Random(n)) for n in range(20)]):  # noqa: S311
            history.run(number, [-1e9 + number], "returned")
        assert len(sampler.propose(history.state, 4)) == 4

    def test_a_proposal_does_not_change_the_history(self, sampler: Sampler) -> None:
        history = tried(CONDITIONAL, 40)
        before = _picture(history.state)
        sampler.propose(history.state, 5)
        assert _picture(history.state) == before

    def test_it_survives_thousands_of_trials(self, sampler: Sampler) -> None:
        history = tried(MIXED, 3000).state
        proposals = sampler.propose(history, 3)
        assert [proposal.number for proposal in proposals] == [3000, 3001, 3002]
        assert all(history.spec.space.problems(proposal.params) == [] for proposal in proposals)

    def _many(
        self, sampler: Sampler, space: dict[str, Any], count: int, start: list[dict[str, Any]] | None = None
    ) -> list[Proposal]:
        """What comes of a study of `count` trials, in batches of four; `start` is tried before."""
        history = History(study_spec(space, budget={"trials": count}, start=start or []))
        history.plan(start or [])
        made: list[Proposal] = []
        while len(made) < count and (batch := sampler.propose(history.state, 4)):
            made += batch
            for number in history.plan([proposal.params for proposal in batch]):
                history.run(number, [1 / (1 + number)], "returned")
        return made


def _draw(history: StudyState, rng: random.Random) -> dict[str, Any]:
    return history.spec.space.choose(lambda _, parameter: parameter.from_unit(rng.random()))


def _distinct(proposals: Iterable[Proposal]) -> bool:
    made = [repr(sorted(proposal.params.items())) for proposal in proposals]
    return len(set(made)) == len(made)


def _all(space: dict[str, Any], count: int, outcome: str) -> History:
    history = History(study_spec(space, budget={"trials": 1000}))
    rng = random.Random(count)  # noqa: S311  # a test
    for number in history.plan([_draw(history.state, rng) for _ in range(count)], budget=2):
        if outcome == "failed":
            history.run(number, [], "failed")
        elif outcome == "pruned":
            history.run(number, [float(number), 1.0])
            history.prune(number)
        elif outcome == "running":
            history.start(number)
            history.report(number, 1.0)
    return history


def _picture(history: StudyState) -> str:
    curves = [list(history.curve(trial.number)) for trial in history.trials]
    return repr((history.trials, curves, list(history.queue), list(history.running), history.steps))
