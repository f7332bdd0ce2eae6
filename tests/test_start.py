"""Configurations to try first: before the sampler's own, once, and the same whichever way the study runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.studies import write_study
from tune_tasks.decide import Place, Policy, plan
from tune_tasks.events import Planned
from tune_tasks.samplers import Sampler
from tune_tasks.samplers.grid import GridSampler
from tune_tasks.samplers.random import RandomSampler
from tune_tasks.samplers.sobol import SobolSampler
from tune_tasks.samplers.tpe import TPESampler
from tune_tasks.schedulers.hyperband import Hyperband
from tune_tasks.schedulers.none import NoScheduler
from tune_tasks.testing.histories import History, study_spec
from tune_tasks.testing.samplers import FINITE, MIXED

ORIGIN = "from trial 44 of digits-mlp-2026-11-14: val_loss 0.040"
STARTS: list[dict[str, Any]] = [
    {"params": {"model": "large", "depth": 2, "flag": False}, "origin": ORIGIN},
    {"params": {"model": "small", "flag": True}},
    {"params": {"model": "large", "depth": 3, "flag": True}, "origin": "a guess"},
]
SAMPLERS: list[Sampler] = [GridSampler(), RandomSampler(seed=1), SobolSampler(seed=1), TPESampler(seed=1, startup=2)]
EVERY_SAMPLER = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)


def in_batches(sampler: Sampler, spec: tt.StudySpec, count: int) -> list[Planned]:
    """What a study plans in batches of `count` whose trials all end before the next."""
    history, plans = History(spec), list[Planned]()
    while not plans or plans[-1].proposals:
        name = f"main-{len(plans):04d}"
        place = Place(f"{name}/sample", "main", len(plans), name)
        plans.append(plan(history.state, Policy(sampler, NoScheduler()), place, count=count, carry=True, time=0))
        history.apply(plans[-1])
        for number in list(history.state.queue):
            history.run(number, [1 / (1 + number)], "returned")
    return plans


def proposed(plans: list[Planned]) -> list[Any]:
    return [proposal for planned in plans for proposal in planned.proposals]


@EVERY_SAMPLER
@pytest.mark.parametrize("count", [1, 2, 4])
def test_they_come_first_with_their_origin_and_are_not_proposed_again(sampler: Sampler, count: int) -> None:
    made = proposed(in_batches(sampler, study_spec(FINITE, start=STARTS), count))
    assert [proposal.reason for proposal in made[:3]] == [ORIGIN, "given in the spec", "a guess"]
    assert [proposal.params for proposal in made[:3]] == [start["params"] for start in STARTS]
    assert [proposal.number for proposal in made] == list(range(8))
    assert len({repr(sorted(proposal.params.items())) for proposal in made}) == 8, "a configuration is tried twice"


@EVERY_SAMPLER
def test_each_has_an_assignment_and_a_batch_is_as_long_as_it_was_asked(sampler: Sampler) -> None:
    first = in_batches(sampler, study_spec(FINITE, start=STARTS, budget={"trials": 5}), 4)[0]
    assert [assignment.trial for assignment in first.assignments] == [0, 1, 2, 3]
    assert [assignment.reason for assignment in first.assignments[:3]] == [ORIGIN, "given in the spec", "a guess"]


def test_more_of_them_than_trials_are_cut_off_by_the_budget() -> None:
    made = proposed(in_batches(RandomSampler(), study_spec(FINITE, start=STARTS, budget={"trials": 2}), 4))
    assert [proposal.params for proposal in made] == [start["params"] for start in STARTS[:2]]


def test_the_grid_is_gone_through_in_order_with_one_turn_less_for_what_was_tried() -> None:
    made = proposed(in_batches(GridSampler(repeats=2), study_spec(FINITE, start=STARTS), 4))[3:]
    turns = [(2, 1), (3, 1), (4, 1), (5, 1), (8, 1), *((cell, 2) for cell in range(1, 9))]
    assert [proposal.reason for proposal in made] == [f"cell {cell} of 8, pass {turn} of 2" for cell, turn in turns]


def test_a_sequence_loses_no_point_to_them() -> None:
    start = {**dict.fromkeys(("rate", "dropout"), 0.01), "momentum": 0.3, "hidden": 20, "batch": 64}
    given = study_spec(MIXED, start=[{**start, "activation": None, "bias": True}], budget={"trials": 5})
    with_it = proposed(in_batches(SobolSampler(seed=1), given, 2))
    alone = proposed(in_batches(SobolSampler(seed=1), study_spec(MIXED, budget={"trials": 4}), 2))
    assert [proposal.params for proposal in with_it[1:]] == [proposal.params for proposal in alone]


def test_a_float_that_is_given_as_a_whole_number_is_one_and_constants_come_along() -> None:
    spec = study_spec({"x": {"type": "float", "low": 0, "high": 4, "step": 2}, "epochs": 3}, start=[{"x": 2}])
    made = proposed(in_batches(GridSampler(), spec, 8))
    assert repr([proposal.params for proposal in made]) == repr([{"x": x, "epochs": 3} for x in (2.0, 0.0, 4.0)])


def test_they_have_the_budget_of_their_place_in_the_brackets() -> None:
    scheduler, history = Hyperband(max_budget=9), History(study_spec(FINITE, start=STARTS))
    place = Place("main-0000/sample", "main", 0, "main-0000")
    made = plan(history.state, Policy(RandomSampler(), scheduler), place, count=8, carry=True, time=0)
    assert [a.budget for a in made.assignments] == [scheduler.first_budget(number) for number in range(8)]


@pytest.mark.parametrize("flow", ["rounds", "streaming"])
def test_a_study_that_runs_tries_them_first_in_both_flows(tmp_path: Path, flow: str) -> None:
    changes = {"start": [{"x": 0.7}, {"x": 1}], "execution": {"runner": "inline", "flow": flow, "batch": 4}}
    study = tt.tune(write_study(tmp_path, **changes))
    other = tt.tune(write_study(tmp_path / "other"))
    assert [trial.params["x"] for trial in study.trials[:2]] == [0.7, 1.0]
    assert [trial.reason for trial in study.trials[:3]] == ["given in the spec", "given in the spec", "random"]
    assert [trial.params for trial in study.trials[2:]] == [trial.params for trial in other.trials[2:]]
