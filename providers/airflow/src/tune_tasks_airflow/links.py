"""The buttons on the page of a task: its study, the study's Ray job, and MLflow.

Airflow makes a button from what is in XCom under the link's key, and puts there what `get_link` returns when a task
ends. Ours are put there as soon as they are known, so that they work while the task runs, or is deferred. This module
must not put a credential into an address, and must not load the engine before a task runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey

    from tune_tasks.studies import Study
    from tune_tasks.study import StudyState

STUDY = "tune_study"
"""The key in XCom under which a task tells the URL of its study."""


class _Link(BaseOperatorLink):
    """A link that the task itself puts into XCom."""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # as Airflow calls it
        """What the task put there; empty where it put nothing, and then there is no button."""
        from airflow.sdk.execution_time.xcom import XCom

        return str(XCom.get_value(ti_key=ti_key, key=self.xcom_key) or "")


class StudyLink(_Link):
    """The page of the task's study, in Airflow."""

    name = "Study"


class RayJobLink(_Link):
    """The job that runs the study's trials, in Ray's dashboard."""

    name = "Ray job"


class MLflowLink(_Link):
    """The study's runs, in MLflow where that is a server."""

    name = "MLflow"


def show_study(context: Context, study: Study) -> None:
    """Puts the links that are known as soon as a study is open where Airflow finds them."""
    instance = context.get("ti")
    if instance is None:  # the operator is executed by hand
        return
    instance.xcom_push(STUDY, study.url)
    page = study_page(instance.dag_id, instance.run_id, instance.task_id, instance.map_index)
    instance.xcom_push(StudyLink().xcom_key, f"tune/{page}")  # below the address at which Airflow is reached
    server = _mlflow(study)
    if server:
        search = urlencode({"experimentSearchFilter": study.spec.name})
        instance.xcom_push(MLflowLink().xcom_key, f"{server}/#/experiments?{search}")


def show_job(context: Context, dashboard: str, job: str) -> None:
    """Puts the link to a Ray job there, at the address of its cluster's dashboard."""
    instance = context.get("ti")
    if instance is not None:
        instance.xcom_push(RayJobLink().xcom_key, f"{_public(dashboard)}/#/jobs/{quote(job, safe='')}")


def showing_job(context: Context, dashboard: str, then: Callable[[StudyState], None]) -> Callable[[StudyState], None]:
    """`then`, and the link to the study's Ray job put there whenever another job is asked for."""
    shown = 0

    def on_change(state: StudyState) -> None:
        from tune_tasks.attend import job_name

        nonlocal shown
        then(state)
        if state.job > shown:
            shown = state.job
            show_job(context, dashboard, job_name(state, shown))

    return on_change


def study_page(dag_id: str, run_id: str, task_id: str | None = None, map_index: int | None = None) -> str:
    """The page of a task's study, or of those of a DAG run, below the address of all these pages."""
    given: dict[str, Any] = {"run_id": run_id, "task_id": task_id, "map_index": map_index}
    query = urlencode({name: value for name, value in given.items() if value is not None})
    return f"dags/{quote(dag_id, safe='')}/study?{query}"


def _mlflow(study: Study) -> str | None:
    """The MLflow server of a study; None where it is none that a browser could open."""
    from tune_tasks.errors import TuneError
    from tune_tasks.tracking.following import Trackers

    try:
        place = Trackers(study.spec, lambda _: None).places(study.state, study.url).get("mlflow", "")
    except TuneError:  # a tracker that is not installed here is no reason to fail a task
        return None
    return _public(place) if place.startswith(("http://", "https://")) else None


def _public(address: str) -> str:
    """An address without a user, a password, a query or a fragment."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
