"""The retraining DAG, made small, over four days: new data, the same, drifted data, and a model that falls short."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.airflow_home import Run, load, run

MONDAY, TUESDAY, WEDNESDAY, THURSDAY = (datetime(2026, 11, day, tzinfo=UTC) for day in (2, 3, 4, 5))


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("retrain")
    return {
        "name": "few-digits",
        "store": str(folder / "studies"),
        "deploy.target": {"name": "folder", "url": str(folder / "deployed")},
        "least_accuracy": 0.5,
        "budget.trials": 6,
        "scheduler.max_budget": 3,
        "execution.runner": "inline",
        "promotion.registry": "none",
    }


@pytest.fixture(scope="module")
def monday(conf: dict[str, Any]) -> Run:
    return run("project", "retrain", conf, MONDAY)


@pytest.fixture(scope="module")
def tuesday(conf: dict[str, Any], monday: Run) -> Run:
    return run("project", "retrain", {**conf, "data": "2026-11-01"}, TUESDAY)


@pytest.fixture(scope="module")
def wednesday(conf: dict[str, Any], tuesday: Run) -> Run:
    return run("project", "retrain", {**conf, "data": "drifted"}, WEDNESDAY)


@pytest.fixture(scope="module")
def thursday(conf: dict[str, Any], wednesday: Run) -> Run:
    return run("project", "retrain", {**conf, "least_accuracy": 1.0}, THURSDAY)


def pointer(done: Run) -> Any:
    """What is deployed by now, where a run deployed to."""
    return json.loads((Path(done.result("deploy")["url"]) / "current.json").read_text())


def champion(done: Run) -> tt.Study:
    return tt.open_study(done.result("begin")["study"])


@pytest.mark.timeout(600)
def test_a_day_goes_from_its_data_to_a_model_that_is_deployed_and_measured(monday):
    assert set(monday.states.values()) == {"success", "skipped"}
    skipped = {task.split(".")[-1] for task, state in monday.states.items() if state == "skipped"}
    assert skipped <= {"sample", "launch_trials", "evaluate_and_prune", "ask", "answer"}
    begun = monday.result("begin")
    assert begun["study"].endswith("few-digits-2026-11-02")
    assert champion(monday).spec.data == "2026-11-01"  # the interval that was over at midnight
    assert champion(monday).state.done
    assert monday.result("agree.promote_best")["promoted"] is True
    assert monday.result("train_final")["final"] == f"{begun['study']}-final"
    assert monday.result("deploy")["deployed"] is True
    assert monday.result("check")["accuracy"] > 0.5


def test_a_day_with_the_data_of_the_day_before_is_skipped(tuesday):
    assert set(tuesday.states.values()) == {"skipped"}
    assert "the data is '2026-11-01' still" in tuesday.result("begin")["reason"]


@pytest.mark.timeout(600)
def test_drifted_data_is_tuned_from_the_best_so_far_and_its_model_takes_over(monday, wednesday):
    begun = wednesday.result("begin")
    assert begun["previous"] == monday.result("begin")["study"]
    assert begun["reason"].startswith("begins with")
    assert champion(wednesday).trials[0].reason.startswith("from trial")
    assert wednesday.result("agree.promote_best")["promoted"] is True
    deployed = wednesday.result("deploy")
    assert (deployed["deployed"], deployed["previous"]) == (True, monday.result("deploy")["version"])
    assert wednesday.states["check"] == "success"


@pytest.mark.timeout(600)
def test_a_model_that_falls_short_goes_and_the_one_before_is_champion_and_deployed_again(wednesday, thursday):
    earlier, failed = wednesday.result("deploy")["version"], thursday.result("deploy")["version"]
    assert earlier != failed
    assert thursday.states["check"] == "failed"
    last = tt.history(champion(thursday))[-1]
    assert (last.by, last.version, last.previous) == ("rollback", earlier, failed)
    assert "of the digits, 100.0% are asked for" in last.why
    assert pointer(thursday)["version"] == earlier


def test_the_tasks_follow_one_another_and_only_one_run_is_active():
    dag = load("project", "retrain")
    assert (dag.max_active_runs, dag.catchup) == (1, False)
    assert dag.get_task("is_new").upstream_task_ids == {"agree.promote_best"}
    assert {"is_new", "begin"} == dag.get_task("train_final").upstream_task_ids
    assert {"agree_final.promote_best", "begin"} == dag.get_task("deploy").upstream_task_ids
    assert {"deploy", "begin"} == dag.get_task("check").upstream_task_ids
