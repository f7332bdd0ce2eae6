"""The digits DAG, made small, from its first sample to the task that uses the promoted model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.airflow_home import load, run
from tests.studies import story


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        "name": "few-digits",
        "store": str(tmp_path_factory.mktemp("studies")),
        "budget.trials": 6,
        "scheduler.max_budget": 3,
        "execution.runner": "inline",
        "promotion.registry": "none",
    }


@pytest.fixture(scope="module")
def first(conf: dict[str, Any]) -> Any:
    return run("project", "digits", conf)


def url(conf: dict[str, Any]) -> str:
    return str(Path(conf["store"]) / conf["name"])


def test_every_task_of_the_dag_succeeds_until_the_study_is_done_and_then_those_that_use_it(first):
    assert len(first.states) == 3 * 10 + 2
    assert set(first.states.values()) == {"success", "skipped"}
    skipped = [first.states[f"tune.round_{number}.sample"] == "skipped" for number in range(10)]
    assert skipped == sorted(skipped)
    assert first.states["tune.promote_best"] == first.states["use_model"] == "success"


def test_the_dag_leaves_a_finished_study(first, conf):
    study = tt.open_study(url(conf))
    assert study.state.done
    assert study.state.reason == "all 6 trials are over"
    assert sorted({trial.budget for trial in study.trials}) == [1, 3]
    assert study.best is not None
    assert study.best.budget == 3


def test_the_last_task_reads_the_manifest_and_predicts_with_the_model(first, conf):
    used, model = first.result("use_model"), first.result("tune.promote_best")
    assert used["trial"] == model["trial"]
    assert used["test_accuracy"] == pytest.approx(model["evaluation"]["test_accuracy"])
    assert used["test_accuracy"] > 0.5


def test_another_run_of_the_dag_adds_nothing_but_its_promotion_to_a_study_that_is_done(first, conf):
    told = story(url(conf))
    again = run("project", "digits", conf)
    assert set(again.states.values()) == {"success", "skipped"}
    assert again.result("use_model")["test_accuracy"] == first.result("use_model")["test_accuracy"]
    after = story(url(conf))
    assert after[: len(told)] == told
    assert [event["type"] for event in after[len(told) :]] == [*["evaluated"] * 4, "promoting", "promoted"]


def test_a_run_with_more_trials_goes_on_with_the_study(first, conf):
    run("project", "digits", {**conf, "budget.trials": 8})
    study = tt.open_study(url(conf))
    assert study.state.done
    assert len(study.trials) == 8


def test_the_tasks_are_wired_in_rounds_and_the_model_follows_the_promotion():
    dag = load("project", "digits")
    assert dag.get_task("tune.round_1.sample").upstream_task_ids == {"tune.round_0.evaluate_and_prune"}
    assert dag.get_task("tune.round_0.launch_trials").upstream_task_ids == {"tune.round_0.sample"}
    ends = {f"tune.round_{number}.evaluate_and_prune" for number in (0, 9)}
    assert dag.get_task("tune.promote_best").upstream_task_ids == ends
    assert dag.get_task("use_model").upstream_task_ids == {"tune.promote_best"}
    assert dag.get_task("tune.round_0.sample").upstream_task_ids == set()
