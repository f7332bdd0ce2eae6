"""Artifacts of a flow run that are brought up to date in place, at a server that may not answer.

This module must not try again, or hold up a step for longer than `PATIENCE`: what is not shown now is shown with the
next thing that is.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.context import FlowRunContext, TaskRunContext
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

PATIENCE = 5.0
"""Seconds that Prefect's server has to take an artifact."""
_REMEMBERED = 100
"""Artifacts of this process that can be brought up to date without asking which they are."""
_CREDENTIALS = re.compile(r"://[^/\s@]*:[^\s@]*@")

_ids: dict[tuple[UUID, str], UUID] = {}
"""The artifacts that this process has made, by run and key."""
_clients: dict[str | None, SyncPrefectClient] = {}
"""By the address of Prefect's server."""


class Shown(NamedTuple):
    """An artifact: its data is a number, a table as JSON, or Markdown."""

    key: str
    kind: str
    data: float | str
    description: str


def masked(text: str) -> str:
    """Text without what stands before the `@` in a URL."""
    return _CREDENTIALS.sub("://***@", text)


def run_id() -> UUID | None:
    """The flow run that this is in, else the task run; None outside a run."""
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    if flow is not None and flow.flow_run is not None:
        return UUID(str(flow.flow_run.id))
    return UUID(str(task.task_run.flow_run_id or task.task_run.id)) if task is not None else None


def put(*shown: Shown) -> None:
    """Makes artifacts, or brings those that this run has up to date, with one call for each."""
    run = run_id()
    # Prefect's client would try for a minute, and the step has other things to do.
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        client = _client()
        _recall(client, run, [each.key for each in shown])
        for each in shown:
            known = _ids.pop((run, each.key), None)  # type: ignore[arg-type]  # there is a run
            if known is None:
                made = client.create_artifact(_request(each)).id
            else:
                client.update_artifact(known, ArtifactUpdate(data=each.data, description=each.description))
                made = known
            _ids[run, each.key] = made  # type: ignore[index]  # as above
    while len(_ids) > _REMEMBERED:
        _ids.pop(next(iter(_ids)))


def put_or_log(*shown: Shown) -> None:
    """The same where nobody looks at what is raised, on a thread."""
    try:
        put(*shown)
    except Exception as error:  # noqa: BLE001  # the trials go on, whatever became of Prefect's server
        not_shown(error)


def not_shown(error: Exception) -> None:
    """Says in the run's log that something could not be shown."""
    get_run_logger().warning("Not shown in Prefect: %s: %s", type(error).__name__, masked(str(error))[:300])


def _client() -> SyncPrefectClient:
    """One client for all artifacts of this process: every new one asks for a token before it sends anything."""
    server = PREFECT_API_URL.value()
    if server not in _clients:
        _clients[server] = get_client({"timeout": PATIENCE}, True)  # noqa: FBT003  # as it is overloaded
    return _clients[server]


def _recall(client: SyncPrefectClient, run: UUID | None, keys: list[str]) -> None:
    """Looks up the artifacts that a flow run made in a process that is gone: only one that was run again has any."""
    flow = FlowRunContext.get()
    again = flow is not None and flow.flow_run is not None and (flow.flow_run.run_count or 0) > 1
    if run is None or not again or any((run, key) in _ids for key in keys):
        return
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=keys), flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    for found in client.read_artifacts(artifact_filter=wanted):
        if found.key is not None:
            _ids[run, found.key] = found.id


def _request(shown: Shown) -> ArtifactCreate:
    """An artifact of the flow run, to which all its tasks contribute; of the task run where there is no flow."""
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    own = flow.flow_run.id if flow is not None and flow.flow_run is not None else None
    flow_run = own or (task.task_run.flow_run_id if task is not None else None)
    return ArtifactCreate(
        key=shown.key,
        type=shown.kind,
        data=shown.data,
        description=shown.description,
        flow_run_id=flow_run,
        task_run_id=task.task_run.id if task is not None and flow_run is None else None,
    )
