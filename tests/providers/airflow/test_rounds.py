"""The rounds of a DAG: those behind the end of a study are skipped, and the promotion is not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, AssetAlias

import tune_tasks as tt
from tests.airflow_home import run
from tests.studies import story, write_study
from tune_tasks.execution import inline
from tune_tasks_airflow.rounds import tune_rounds

PROMOTE = "tune.promote_best"


def states(done: Any, number: int) -> list[str]:
    """How the three tasks of a round stand."""
    return [done.states[f"tune.round_{number}.{task}"] for task in ("sample", "launch_trials", "evaluate_and_prune")]


def rounds_of(*arguments: Any, **options: Any) -> int:
    """How many rounds a group has."""
    with DAG("counted", schedule=None):
        return len(tune_rounds(*arguments, **options).children) - 1


def test_rounds_that_a_study_does_not_need_are_skipped_and_it_is_promoted(tmp_path):
    spec = write_study(tmp_path, execution={"runner": "inline", "batch": 9})
    done = run("tests", "small", {"spec": str(spec)})
    verdicts = [done.result(f"tune.round_{number}.evaluate_and_prune") for number in range(6)]
    needed = next(number for number, verdict in enumerate(verdicts) if verdict["done"]) + 1
    assert 1 < needed < 6
    for number in range(6):
        assert states(done, number) == ["success" if number < needed else "skipped"] * 3
    assert done.result(PROMOTE)["promoted"] is True


def test_a_cleared_run_skips_the_same_rounds_and_adds_nothing(tmp_path):
    spec, monday = write_study(tmp_path), datetime(2026, 11, 2, tzinfo=UTC)
    first = run("tests", "small", {"spec": str(spec)}, monday)
    told = story(str(tmp_path / "studies" / "small"))
    again = run("tests", "small", {"spec": str(spec)}, monday)
    assert (again.id, again.states) == (first.id, first.states)
    assert story(str(tmp_path / "studies" / "small")) == told


def test_a_run_whose_study_was_done_before_still_promotes(tmp_path):
    spec = write_study(tmp_path)
    tt.tune(spec)
    done = run("tests", "small", {"spec": str(spec)})
    assert states(done, 0) == ["success"] * 3
    assert [states(done, number) for number in range(1, 6)] == [["skipped"] * 3] * 5
    assert done.result(PROMOTE)["promoted"] is True


def test_a_round_that_fails_is_not_followed_by_a_promotion(tmp_path, monkeypatch):
    spec, calls = write_study(tmp_path), []
    opened = inline.InlineRunner.open

    def failing(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(self)
        if len(calls) > 1:
            raise OSError("the disk is full")
        return opened(self, *arguments, **options)

    monkeypatch.setattr(inline.InlineRunner, "open", failing)
    done = run("tests", "small", {"spec": str(spec)})
    assert states(done, 0) == ["success"] * 3
    assert states(done, 1) == ["success", "failed", "upstream_failed"]
    assert done.states[PROMOTE] == "upstream_failed"


def test_rounds_are_counted_from_a_spec_where_nobody_says_how_many(tmp_path):
    spec = write_study(tmp_path)  # 9 trials in batches of 4, and rungs at 1, 3 and 9 steps
    assert rounds_of(spec) == 5 + 3
    assert rounds_of(spec, count=9) == 2 + 3
    assert rounds_of(spec, overrides={"budget.trials": 20, "scheduler.max_budget": 3}) == 10 + 2
    assert rounds_of(spec, overrides={"scheduler": {"name": "none", "max_budget": 9}}) == 5 + 1
    assert rounds_of(spec, overrides={"execution.flow": "streaming"}) == 1
    assert rounds_of(spec, rounds=2) == 2


@pytest.mark.parametrize("count", [1, 2, 4, 9])
@pytest.mark.parametrize("scheduler", ["asha", "successive_halving", "hyperband"])
def test_as_many_rounds_as_are_counted_are_enough(tmp_path, scheduler, count):
    options = {"name": scheduler, "min_budget": 1, "max_budget": 9, "reduction_factor": 3}
    spec = write_study(tmp_path, scheduler=options, execution={"runner": "inline", "batch": count})
    study = tt.open_study(spec)
    for _ in range(rounds_of(spec)):
        batch = tt.sample(study)
        tt.launch_trials(study, batch)
        if tt.evaluate_and_prune(study, batch).done:
            break
    assert study.state.done


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        ("{{ params.spec }}", {}, "rounds: give a number, for the spec cannot be read when the DAG is parsed"),
        (
            None,
            {"overrides": {"budget.trials": 4000}},
            "the spec may take 2003, and a DAG has at mo",
        ),
        (None, {"rounds": 0}, "rounds is 0, must be at least 1"),
    ],
)
def test_rounds_that_cannot_be_are_refused_when_the_dag_is_parsed(tmp_path, study, options, message):
    with pytest.raises(ValueError, match=message):
        rounds_of(study or write_study(tmp_path), **options)


def test_what_is_for_the_launch_or_the_promotion_alone_goes_there(tmp_path):
    with DAG("wired", schedule=None):
        group = tune_rounds("s.yaml", rounds=2, launch={"deferrable": True}, outlets=[AssetAlias("best")], retries=7)
    tasks = {task.task_id: task for task in group.iter_tasks()}
    assert [name for name, task in tasks.items() if task.outlets] == [PROMOTE]
    assert tasks["tune.round_1.launch_trials"].deferrable is True
    assert {task.retries for task in tasks.values()} == {7}


def test_a_streaming_group_is_done_after_its_one_launch(tmp_path: Path):
    spec = write_study(tmp_path, store=str(tmp_path / "studies"))
    done = run("tests", "streaming", {"spec": str(spec), "overrides": {"sampler.seed": 8}})
    assert set(done.states.values()) == {"success"}
    small, few = (tt.open_study(str(tmp_path / "studies" / name)) for name in ("small", "few"))
    assert (small.state.done, len(small.trials), small.spec.sampler.options["seed"]) == (True, 9, 8)
    assert (few.state.done, len(few.trials)) == (True, 3)
    assert done.result("tune.round_0.evaluate_and_prune")["done"] is True
