"""A study that another DAG carries on: refused with what to do, unless the DAG goes by the other one's name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

import tune_tasks as tt
from tests.airflow_home import run
from tests.studies import events, write_study
from tune_tasks_airflow.decorators import tune_sample
from tune_tasks_airflow.launch import TuneOperator
from tune_tasks_airflow.operators import (
    ExtendOperator,
    PromoteBestOperator,
    SampleOperator,
    TrainFinalOperator,
    UndeployOperator,
    pipeline_name,
)
from tune_tasks_airflow.rounds import tune_rounds
from tune_tasks_airflow.scheduled import RetrainOperator

AT = {"logical_date": datetime(2026, 11, 2, tzinfo=UTC)}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return write_study(tmp_path, deploy={"target": {"name": "folder", "url": str(tmp_path / "served")}})


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "studies" / "small")


def execute(operator: Any, *, dag: str, **fields: Any) -> dict[str, Any]:
    """Executes an operator on its own, as a task of a DAG."""
    context: Any = {"dag": SimpleNamespace(dag_id=dag), "run_id": "1", "dag_run": SimpleNamespace(**AT)}
    result: dict[str, Any] = operator(task_id="task", **fields).execute(context)
    return result


def test_a_second_dag_that_names_the_same_study_fails_at_once_and_is_told_whose_it_is(spec, url, capsys):
    assert set(run("tests", "small", {"spec": str(spec)}).states.values()) == {"success", "skipped"}
    told = len(events(url))
    second = run("tests", "once", {"spec": str(spec), "overrides": {"budget.trials": 20}})
    assert set(second.states.values()) == {"failed", "upstream_failed"}
    assert second.tries("tune.round_0.sample") == 1
    assert (
        f"study: {url} is carried on by the pipeline 'airflow/small', and this is 'airflow/once'; "
        "give the study another name, or, where it shall be shared or the pipeline was renamed, "
        "say pipeline='airflow/small'"
    ) in capsys.readouterr().out
    assert len(events(url)) == told
    assert set(run("tests", "small", {"spec": str(spec)}).states.values()) == {"success", "skipped"}


def test_a_dag_that_goes_by_the_name_of_the_other_shares_its_study(spec, url):
    batch = execute(SampleOperator, dag="mine", study=spec)
    with pytest.raises(AirflowFailException, match="carried on by the pipeline 'airflow/mine', and this is"):
        execute(SampleOperator, dag="yours", study=url)
    shared = execute(SampleOperator, dag="yours", study=url, pipeline=pipeline_name("mine"))
    assert shared["study"] == batch["study"] == url
    assert tt.open_study(url).state.pipeline == "airflow/mine"


def test_a_team_has_a_name_of_its_own_for_all_its_dags(spec, url):
    for dag in ("mine", "yours"):
        execute(SampleOperator, dag=dag, study=spec, pipeline="team")
    assert tt.open_study(url).state.pipeline == "team"


def test_what_carries_a_study_on_is_for_its_dag_alone(spec, url):
    execute(TuneOperator, dag="mine", study=spec)
    changes = {"changes": {"budget.trials": 10}}
    for operator, fields in ((TuneOperator, {}), (PromoteBestOperator, {}), (ExtendOperator, changes)):
        with pytest.raises(AirflowFailException, match="carried on by the pipeline 'airflow/mine'"):
            execute(operator, dag="yours", study=url, **fields)
    assert tt.open_study(url).spec.budget.trials == 9


def test_what_follows_a_search_is_for_any_dag_and_the_final_study_belongs_to_who_trains_it(spec, url):
    execute(TuneOperator, dag="mine", study=spec)
    execute(UndeployOperator, dag="yours", study=url)
    final = execute(TrainFinalOperator, dag="yours", study=spec)["final"]
    assert tt.open_study(final).state.pipeline == "airflow/yours"
    assert tt.open_study(url).state.pipeline == "airflow/mine"
    with pytest.raises(AirflowFailException, match="small-final is carried on by the pipeline 'airflow/yours'"):
        execute(PromoteBestOperator, dag="mine", study=final)


def test_a_series_belongs_to_the_dag_that_began_it(spec):
    execute(RetrainOperator, dag="mine", study=spec, run="monday", data="1")
    with pytest.raises(AirflowFailException, match="series: small is carried on by the pipeline 'airflow/mine'"):
        execute(RetrainOperator, dag="yours", study=spec, run="tuesday", data="2")
    execute(RetrainOperator, dag="renamed", study=spec, run="tuesday", data="2", pipeline="airflow/mine")


def test_two_deployments_of_airflow_are_told_apart_where_they_have_names(spec, monkeypatch):
    execute(SampleOperator, dag="nightly", study=spec)
    monkeypatch.setenv("AIRFLOW__TUNE_TASKS__DEPLOYMENT", "staging")
    assert pipeline_name("nightly") == "staging/nightly"
    with pytest.raises(AirflowFailException, match="'airflow/nightly', and this is 'staging/nightly'"):
        execute(SampleOperator, dag="nightly", study=spec)


def test_a_group_and_a_decorator_hand_the_name_on():
    @tune_sample(pipeline="team")
    def named() -> str:
        return "study.yaml"

    with DAG("together", schedule=None) as dag:
        tune_rounds("study.yaml", rounds=2, pipeline="team")
        named()
    assert [task.pipeline for task in dag.tasks] == ["team"] * 8  # type: ignore[attr-defined]
