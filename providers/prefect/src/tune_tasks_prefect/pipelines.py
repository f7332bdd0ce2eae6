"""By which names a flow run goes in a study: the pipeline that carries it on, and the run whose rounds are counted.

This module must not refuse anything: whose a study is, the engine says.
"""

from __future__ import annotations

import re
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.runtime import deployment

MAIN = "main"
"""The pipeline run of whoever does not name one, as the engine calls it."""

_names: dict[UUID, str] = {}
"""What the deployments of this process are called."""


def pipeline_name() -> str | None:
    """Names the pipeline `prefect/<flow>/<deployment>` in a deployment's run; None for one that someone tries out.

    The first deployment that carries a study on owns it, and the engine refuses another one. A run without a deployment
    is nobody's, so it is not refused, and owns nothing. A subflow goes by the deployment of the run that it is in.
    """
    found = _deployment()
    return None if found is None else deployment_name(found)


def run_name() -> str:
    """Names the pipeline run of a deployment's flow run by that run, and any other one `main`.

    It is the same when the flow run is retried or rescheduled, and another one in the next flow run.
    """
    run = _flow_run()
    if run is None or _deployment() is None:
        return MAIN
    context = FlowRunContext.get()
    flow = context.flow.name if context is not None and context.flow is not None else "flow"
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", flow).lstrip(".-")[:80]
    return f"{plain or 'flow'}-{UUID(str(run.id)).hex[-12:]}"  # the front of an id is the time, which runs may share


def deployment_name(id: UUID) -> str:  # noqa: A002  # Prefect's word
    """Names a deployment among the pipelines that use a store; Prefect is asked once in a process."""
    if id not in _names:
        with get_client(sync_client=True) as client:
            found = client.read_deployment(id)
            _names[id] = f"prefect/{client.read_flow(found.flow_id).name}/{found.name}"
    return _names[id]


def _flow_run() -> FlowRun | None:
    context = FlowRunContext.get()
    return context.flow_run if context is not None else None


def _deployment() -> UUID | None:
    """Of this run, or of the one that it is a part of."""
    run = _flow_run()
    if run is None or run.deployment_id is not None or run.parent_task_run_id is None:
        return run.deployment_id if run is not None else None
    found = deployment.get_id()
    return UUID(found) if found else None
