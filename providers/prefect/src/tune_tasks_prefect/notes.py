"""Which Ray jobs a flow run has launched, noted in its labels, so that whoever ends the run finds and stops them.

The flow's process may be dead by then, and the parameters need not name the study. This module must not hold a secret
in a label, and must not stop the job of a study that another pipeline carries on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from prefect import get_run_logger
from prefect.client.schemas.objects import FlowRun

from tune_tasks_prefect.asking import impatient
from tune_tasks_prefect.opening import source_of
from tune_tasks_prefect.pipelines import deployment_name

if TYPE_CHECKING:
    from tune_tasks.execution.jobs import Jobs
    from tune_tasks.studies import Study

_LABEL = "tune_tasks.job."


class Note(NamedTuple):
    """Where a study's Ray job is: the study's URL, and the blocks that name its store and its cluster."""

    study: str
    store: str | None = None
    cluster: str | None = None


def write_note(run: UUID, study: Study, note: Note) -> None:
    """Notes a job in the labels of the flow run that asks for it; one that cannot be noted is told in the log."""
    try:
        with impatient() as client:
            client.update_flow_run_labels(run, {f"{_LABEL}{study.state.study[:16]}": json.dumps(note._asdict())})
    except Exception as error:  # noqa: BLE001  # the launch is wanted, whatever became of Prefect's server
        get_run_logger().warning("The Ray job of %s is not noted in this run: %s", note.study, error)


def written(run: FlowRun) -> list[Note]:
    """The jobs that a flow run has launched."""
    return [Note(**json.loads(str(value))) for name, value in run.labels.items() if name.startswith(_LABEL)]


def notes_of(run: FlowRun) -> list[Note]:
    """The jobs of a flow run; where it has launched none, that of the study in its parameters, if its deployment's."""
    return written(run) or list(_named(run))


@contextmanager
def opened_job(note: Note) -> Iterator[tuple[Study, Jobs]]:
    """The study of a job, as it is now, and the jobs of its cluster."""
    from tune_tasks.execution.jobs import Jobs
    from tune_tasks.studies import open_study
    from tune_tasks_prefect.blocks import dashboard_of, opened

    with opened(note.store):
        study = open_study(note.study)
        address = None if note.cluster else study.spec.execution.address
        yield study, Jobs(dashboard_of(note.cluster, address))


def _named(run: FlowRun) -> Iterator[Note]:
    """The study that the parameters name; a run that someone tries out owns none, so it may not stop one here."""
    from tune_tasks.studies import find_study, study_url
    from tune_tasks_prefect.blocks import opened

    named, store = run.parameters.get("study"), run.parameters.get("store")
    if named is None or run.deployment_id is None:
        return
    with opened(store) as place:
        source = source_of(named, run.parameters.get("overrides"), place)
        study = find_study(source if isinstance(source, str) else study_url(source))
    pipeline = run.parameters.get("pipeline") or deployment_name(run.deployment_id)
    if study is not None and study.spec.execution.runner == "job" and study.state.pipeline == pipeline:
        yield Note(study.url, store, run.parameters.get("cluster"))
