"""A study that is over goes on with more trials, longer budgets, a wider space or another sampler, and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.studies import events, write_study
from tune_tasks.errors import ConfigError
from tune_tasks.events import Amended
from tune_tasks.study import OVER


def amended(study: tt.Study) -> list[Amended]:
    return [event for event in events(study.url) if isinstance(event, Amended)]


def finished(folder: Path, **changes: Any) -> tt.Study:
    study = tt.tune(write_study(folder, **changes))
    assert study.state.done
    return study


def kept(study: tt.Study) -> list[Any]:
    """What must not change of the trials that are there: a configuration, and what was reported for it so far."""
    return [(trial.params, [report.metrics for report in trial.reports]) for trial in study.trials]


def test_more_trials_go_on_from_all_that_were_tried(tmp_path: Path) -> None:
    study = finished(tmp_path)
    before = kept(study)
    tt.extend(study, trials=15)
    assert not study.state.done
    assert amended(study)[-1].changes == ("budget.trials is 15 here and 9 in the study",)
    assert amended(study)[-1].reopened == ()
    tt.tune(study)
    assert len(study.trials) == 15
    assert kept(study)[:9] == before
    assert {trial.state for trial in study.trials} <= OVER


def test_the_same_extension_twice_is_one(tmp_path: Path) -> None:
    study = finished(tmp_path)
    tt.extend(study.url, trials=15)
    tt.extend(study.url, trials=15)
    assert len(amended(study)) == 1


@pytest.mark.parametrize("flow", ["rounds", "streaming"])
@pytest.mark.parametrize(
    ("scheduler", "longer", "gone_on"),
    [
        ({"name": "asha", "min_budget": 1, "max_budget": 9, "reduction_factor": 3}, 27, 1),
        ({"name": "asha", "min_budget": 1, "max_budget": 5, "reduction_factor": 3}, 12, 1),
        ({"name": "successive_halving", "min_budget": 1, "max_budget": 9, "reduction_factor": 3}, 20, 1),
        ({"name": "hyperband", "min_budget": 1, "max_budget": 9, "reduction_factor": 3}, 27, 1),
        ({"name": "median", "max_budget": 4, "grace": 2}, 6, 2),
        ({"name": "none", "max_budget": 2}, 4, 9),
    ],
    ids=["asha", "asha between rungs", "successive_halving", "hyperband", "median", "none"],
)
def test_a_larger_budget_has_complete_trials_judged_again(
    tmp_path: Path, flow: str, scheduler: dict[str, Any], longer: int, gone_on: int
) -> None:
    checkpoints = {"keep_best": None, "keep_last": None}
    execution = {"runner": "inline", "flow": flow, "batch": 4}
    study = finished(tmp_path, scheduler=scheduler, checkpoints=checkpoints, execution=execution)
    before, complete = kept(study), [trial.number for trial in study.trials if trial.state == "completed"]
    tt.extend(study, max_budget=longer)
    assert list(amended(study)[-1].reopened) == complete
    tt.tune(study)
    assert {trial.state for trial in study.trials} <= OVER
    longest = [trial.number for trial in study.trials if trial.budget == longer]
    assert set(longest) <= set(complete), "a trial that was pruned came back"
    assert len(longest) >= gone_on
    for number, (params, reports) in enumerate(before):
        assert kept(study)[number][0] == params
        assert kept(study)[number][1][: len(reports)] == reports, "what was reported is not there any more"
    assert study.trials[longest[0]].attempts > 1


def test_a_trial_that_has_no_checkpoint_any_more_begins_again(tmp_path: Path) -> None:
    study = finished(tmp_path, scheduler={"name": "none", "max_budget": 2}, checkpoints={"keep_best": 1})
    tt.tune(tt.extend(study, max_budget=4))
    assert [trial.budget for trial in study.trials] == [4] * 9
    assert {trial.state for trial in study.trials} == {"completed"}


def test_a_trial_whose_objective_returned_has_nothing_more_to_do(tmp_path: Path) -> None:
    once = {"objective": "objective:once", "scheduler": {"name": "none", "max_budget": 3}}
    study = finished(tmp_path, **once)
    tt.extend(study, max_budget=6)
    assert amended(study)[-1].reopened == ()


def test_an_unfinished_study_is_extended_too(tmp_path: Path) -> None:
    scheduler = {"name": "none", "max_budget": 2}
    study = tt.open_study(write_study(tmp_path, scheduler=scheduler, checkpoints={"keep_best": None}))
    tt.launch_trials(study, tt.sample(study))
    tt.evaluate_and_prune(study, "main-0000")
    tt.sample(study)
    tt.extend(study, max_budget=4, trials=10)
    assert [trial.state for trial in study.trials] == ["paused"] * 4 + ["queued"] * 4
    tt.tune(study)
    assert [trial.budget for trial in study.trials] == [4] * 10
    assert {trial.state for trial in study.trials} == {"completed"}


def test_a_wider_space_is_searched_and_old_trials_stay_inside(tmp_path: Path) -> None:
    study = finished(tmp_path)
    tt.extend(study, trials=60, space={"x": {"high": 8.0}, "epochs": 3})
    tt.tune(study)
    assert max(trial.params["x"] for trial in study.trials[9:]) > 1
    assert all(trial.params["epochs"] == 3 for trial in study.trials[9:])
    assert [sorted(trial.params) for trial in study.trials[:9]] == [["x"]] * 9


def test_a_constant_becomes_a_parameter_where_it_had_that_value(tmp_path: Path) -> None:
    study = finished(tmp_path, space={"x": {"type": "float", "low": 0, "high": 1}, "n": 2})
    tt.tune(tt.extend(study, trials=40, space={"n": {"type": "int", "low": 1, "high": 4}}))
    assert {trial.params["n"] for trial in study.trials} == {1, 2, 3, 4}
    assert {trial.params["n"] for trial in study.trials[:9]} == {2}


def test_another_sampler_learns_from_all_trials(tmp_path: Path) -> None:
    study = finished(tmp_path)
    tt.extend(study, trials=14, sampler={"name": "tpe", "startup": 5})
    tt.tune(study)
    assert [trial.reason for trial in study.trials[:9]] == ["random"] * 9
    assert study.trials[9].reason == "expected improvement over 9 trials (TPE)"


def test_a_grid_that_grows_has_only_its_new_cells_tried(tmp_path: Path) -> None:
    grid = {"n": {"type": "int", "low": 1, "high": 3}, "x": {"type": "categorical", "choices": [0.1, 0.5]}}
    study = finished(
        tmp_path, space=grid, sampler="grid", budget={"trials": 50}, scheduler="none", objective="objective:once"
    )
    assert len(study.trials) == 6
    assert study.state.reason == "the sampler has nothing more to try after 6 trials"
    tt.tune(tt.extend(study, space={"n": {"high": 4}, "fixed": True}))
    assert [trial.params for trial in study.trials[6:]] == [{"n": 4, "x": x, "fixed": True} for x in (0.1, 0.5)]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_constant_that_is_added_makes_no_configuration_a_new_one(tmp_path: Path, sampler: str) -> None:
    finite = {"x": {"type": "categorical", "choices": [0.1, 0.3, 0.5, 0.9]}}
    once = {"objective": "objective:once", "scheduler": "none"}
    study = finished(tmp_path, **once, space=finite, sampler={"name": sampler}, budget={"trials": 3})
    tt.tune(tt.extend(study, trials=20, space={"fixed": True}))
    assert sorted(trial.params["x"] for trial in study.trials) == [0.1, 0.3, 0.5, 0.9]


def test_the_model_is_promoted_before_and_again_after(tmp_path: Path) -> None:
    study = finished(tmp_path, space={"x": {"type": "float", "low": 0.0, "high": 0.5}})
    first = tt.promote_best(study)
    assert first.promoted
    assert not tt.promote_best(study, run="again").promoted
    tt.tune(tt.extend(study, trials=18, space={"x": {"high": 1}}))
    second = tt.promote_best(study)
    assert second.promoted, second.reason
    assert second.trial is not None
    assert second.trial >= 9
    assert tt.promote_best(study) == second
    assert study.state.promotions[0] == first.model_dump(mode="json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"changes": {"metric": "other"}}, "metric is 'other' here and 'loss' in the study"),
        ({"changes": {"budget.trails": 3}}, "budget.trails: 'trails' is not allowed; unknown key"),
        ({"changes": {"scheduler.name": "none"}}, "judged by 'asha'; begin a new study"),
        ({"max_budget": 3}, "scheduler.max_budget: 3 is not allowed; trials were given 9 already"),
        ({"scheduler": {"factor": 3}}, "scheduler.factor"),
        ({"sampler": "tpa"}, "sampler.name: 'tpa' is not allowed"),
        ({"space": {"x": {"low": 0.1}}}, "space.x: 0 would not be allowed any more; a space may only become wider"),
        ({"space": {"x": {"step": 0.1}}}, "space.x: steps of any size would not be allowed any more"),
        ({"space": {"x": {"type": "int", "low": 0, "high": 1}}}, "space.x: every float from 0 to 1 would not be"),
        ({"space": {"y": {"type": "int", "low": 0, "high": 1}}}, "space.y: is new, and the trials so far have no"),
        ({"space": {"x": {"when": {"k": 2}}, "k": 1}}, "'when'.*k|k.*2"),
        ({"changes": {"space.x": {"type": "categorical", "choices": [0.5]}}}, "space.x: every float from 0 to 1"),
    ],
)
def test_what_cannot_change_is_refused_with_the_reason(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    study = tt.open_study(write_study(tmp_path))
    with pytest.raises(ConfigError, match=message):
        tt.extend(study, **changes)
    assert amended(study) == []


def test_a_spec_with_another_space_says_how_a_study_is_extended(tmp_path: Path) -> None:
    finished(tmp_path)
    wider = write_study(tmp_path, space={"x": {"type": "float", "low": 0.0, "high": 2.0}})
    with pytest.raises(ConfigError, match=r"space.x.high is 2.0 here and 1.0 in the study\n.*`tune-tasks extend`"):
        tt.open_study(wider)
    tt.extend(tmp_path / "studies" / "small", space={"x": {"high": 2.0}})
    assert not tt.open_study(wider).state.done


def test_a_condition_that_puts_old_trials_outside_is_refused(tmp_path: Path) -> None:
    study = finished(
        tmp_path, space={"x": {"type": "float", "low": 0, "high": 1}, "kind": {"type": "grid", "choices": [1, 2]}}
    )
    with pytest.raises(ConfigError, match=r"space: trial [0-9] would lie outside: x: does not exist for this"):
        tt.extend(study, space={"x": {"when": {"kind": [1]}}})


def test_a_driver_at_work_goes_on_with_more_trials(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    study, other = tt.open_study(path), tt.open_study(path)

    def meanwhile(state: Any) -> None:
        if state.trials and state.trials[0].budget and not amended(other):
            tt.extend(other, trials=12)

    tt.tune(study, on_change=meanwhile)
    assert len(study.trials) == 12
    assert sum(event.type == "opened" for event in events(study.url)) == study.state.rounds["main"]


def test_a_driver_at_work_is_fenced_where_the_search_changes(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    study, other = tt.open_study(path), tt.open_study(path)

    def meanwhile(state: Any) -> None:
        if state.trials and state.trials[0].budget and not amended(other):
            tt.extend(other, max_budget=27)

    with pytest.raises(tt.Fenced):
        tt.tune(study, on_change=meanwhile)
    tt.tune(tt.open_study(other.url))
    assert max(trial.budget for trial in other.refresh().trials) == 27
    assert {trial.state for trial in other.trials} <= OVER


@pytest.mark.parametrize(
    ("space", "name", "value"),
    [
        ({"opt.rate": {"type": "float", "low": 0.1, "high": 1}}, "space.opt.rate.high", 2.0),
        ({"opt": {"rate": {"type": "float", "low": 0.1, "high": 1}}}, "space.opt.rate.high", 2.0),
    ],
)
def test_one_key_of_a_parameter_in_a_group_is_changed_by_its_path(
    tmp_path: Path, space: dict[str, Any], name: str, value: float
) -> None:
    study = tt.open_study(write_study(tmp_path, space=space))
    tt.extend(study, changes={name: value})
    assert study.spec.space["opt.rate"].model_dump()["high"] == value
    assert len(study.spec.space) == 1
