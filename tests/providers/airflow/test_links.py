"""The buttons of a task: what each leads to, while the task runs and after it, and that none tells a secret."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session

import tune_tasks as tt
from tests.airflow_home import run
from tests.execution.test_jobs import dashboard
from tests.providers.airflow.test_launch import Cluster, context, deferred, launch
from tests.studies import write_study
from tune_tasks.attend import job_name
from tune_tasks.errors import ConfigError
from tune_tasks_airflow.get_provider_info import get_provider_info
from tune_tasks_airflow.launch import LaunchTrialsOperator
from tune_tasks_airflow.links import STUDY, MLflowLink, RayJobLink, StudyLink, show_job, show_study, showing_job
from tune_tasks_airflow.operators import SampleOperator

SAMPLE = "tune.round_0.sample"
PAGE = "tune/dags/d/study?run_id=r&task_id=t&map_index=-1"


class Instance(SimpleNamespace):
    """A task instance that keeps what is pushed; all of it, in order."""

    def __init__(self) -> None:
        known = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}
        super().__init__(**known, try_number=1, id="id", pushed=[])

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed.append((key, value))


def links_in_xcom(run_id: str, task: str) -> dict[str, Any]:
    """What the database has of a task's XCom, without the result."""
    with create_session() as session:
        found = session.scalars(XComModel.get_many(run_id=run_id, task_ids=task)).all()
        return {each.key: XComModel.deserialize_value(each) for each in found if each.key != "return_value"}


@pytest.fixture
def tracked(tmp_path: Path) -> tt.Study:
    tracking = [{"name": "mlflow", "uri": "https://ann:secret@mlflow.example/base/?token=abc"}]
    return tt.open_study(write_study(tmp_path, tracking=tracking))


def test_a_task_has_its_links_when_its_work_begins_and_the_same_ones_at_its_end(tmp_path, monkeypatch):
    seen: list[dict[str, Any]] = []
    perform = SampleOperator._perform

    def looking(self, study, context, **given):
        seen.append(links_in_xcom(context["run_id"], SAMPLE))
        return perform(self, study, context, **given)

    monkeypatch.setattr(SampleOperator, "_perform", looking)
    done = run("tests", "once", {"spec": str(write_study(tmp_path))})
    assert set(done.states.values()) == {"success"}
    (early,) = seen
    after = links_in_xcom(done.id, SAMPLE)
    assert early[STUDY] == str(tmp_path / "studies" / "small")
    assert early["_link_StudyLink"].startswith("tune/dags/once/study?run_id=")
    assert {name: after[name] for name in early} == early
    assert not any(value for name, value in after.items() if name not in early), "no MLflow server, no such button"


def test_the_mlflow_button_opens_the_server_at_the_study_without_a_secret(tracked):
    instance = Instance()
    show_study({"ti": instance}, tracked)
    assert instance.pushed == [
        ("tune_study", tracked.url),
        ("_link_StudyLink", PAGE),
        ("_link_MLflowLink", "https://mlflow.example/base/#/experiments?experimentSearchFilter=small"),
    ]


def test_a_study_whose_tracker_is_not_installed_here_has_no_mlflow_button_and_runs(tracked, monkeypatch):
    def missing(_spec):
        raise ConfigError("tracking: nothing of that name is installed")

    monkeypatch.setattr("tune_tasks.tracking.following.trackers", missing)
    instance = Instance()
    show_study({"ti": instance}, tracked)
    assert [key for key, _ in instance.pushed] == ["tune_study", "_link_StudyLink"]


def test_an_operator_that_is_executed_by_hand_has_no_links(tracked):
    show_study({}, tracked)
    show_job({}, "http://head:8265", "job-1")


def test_a_deferred_launch_has_the_link_to_its_job(tmp_path):
    cluster = Cluster()
    with dashboard(cluster.answer) as (address, _):
        study = tt.open_study(write_study(tmp_path, execution={"runner": "job", "address": address}))
        tt.sample(study)
        given = context() | {"ti": Instance()}
        deferred(lambda: launch(study).execute(given))
    job = job_name(study.refresh(), 1)
    assert given["ti"].pushed[-1] == ("_link_RayJobLink", f"{address}/#/jobs/{job}")


def test_the_link_follows_the_study_to_its_next_job(tracked):
    instance, heard = Instance(), []
    on_change = showing_job({"ti": instance}, "http://ann:secret@head:8265/?x=1", heard.append)
    for job in (0, 1, 1, 2):
        tracked.state.requests["main-0000"] = job
        on_change(tracked.state)
    addresses = [f"http://head:8265/#/jobs/{job_name(tracked.state, job)}" for job in (1, 2)]
    assert instance.pushed == [("_link_RayJobLink", address) for address in addresses]
    assert len(heard) == 4


@pytest.mark.parametrize("link", [StudyLink(), RayJobLink(), MLflowLink()])
def test_the_provider_names_every_link_and_the_operators_have_them(link):
    assert f"{type(link).__module__}.{type(link).__name__}" in get_provider_info()["extra-links"]
    assert link in LaunchTrialsOperator.operator_extra_links
    assert link.xcom_key == f"_link_{type(link).__name__}"
