"""Deployments of a prefect.yaml, made by Prefect's own `prefect deploy`.

What a person has paused stays paused: deploying again would start it. This module must not read a flow's code, and
must not decide what a deployment runs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from tune_tasks.errors import ConfigError
from tune_tasks_prefect.automations import Done, content

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import DeploymentSchedule
    from prefect.client.schemas.responses import DeploymentResponse

HEARTBEAT = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
"""The setting of a flow's process by which Prefect says every so many seconds that it lives; 30 is the least."""
_LAST_LINES = 12
_SAID = (
    *("parameters", "tags", "entrypoint", "path", "pull_steps", "work_pool_name", "job_variables", "description"),
    *("parameter_openapi_schema", "enforce_parameter_schema", "concurrency_options", "paused"),
)


class Listed(NamedTuple):
    """A deployment that a file lists."""

    name: str
    entrypoint: str
    pool: str | None
    parameters: Mapping[str, Any]
    heartbeat: timedelta | None
    """That its runs are told to give signs of life at; None: whatever the worker has."""


class Change(NamedTuple):
    """What became of a deployment, by its full name."""

    name: str
    done: Done


def listed(file: Path) -> list[Listed]:
    """The deployments of a file. Raises `ConfigError` where there is no such file, or none in it."""
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"file: {str(file)!r} cannot be read: {error}") from error
    found = read.get("deployments") if isinstance(read, dict) else None
    if not found or not all(isinstance(one, dict) and one.get("name") and one.get("entrypoint") for one in found):
        raise ConfigError(f"file: {str(file)!r} must list `deployments`, each with a `name` and an `entrypoint`")
    return [_listed(one) for one in found]


def deploy(client: SyncPrefectClient, file: Path) -> Iterator[Change]:
    """Makes or updates what a file lists, as `prefect deploy --all` in its folder, and says what that changed.

    Raises `ConfigError` with Prefect's own last lines where it refuses one.
    """
    wanted = listed(file)
    before = {one.id: _told(client, one) for one in _current(client, wanted)}
    _run(file)
    for one in _current(client, wanted):
        known = before.get(one.id)
        if known is not None:
            _pause_again(client, one, known)
        now = _told(client, client.read_deployment(one.id))
        name = f"{client.read_flow(one.flow_id).name}/{one.name}"
        yield Change(name, "made" if known is None else "found" if known == now else "changed")


def _listed(one: Mapping[str, Any]) -> Listed:
    pool = one.get("work_pool") or {}
    seconds = ((pool.get("job_variables") or {}).get("env") or {}).get(HEARTBEAT)
    heartbeat = timedelta(seconds=float(seconds)) if seconds else None
    return Listed(one["name"], one["entrypoint"], pool.get("name"), one.get("parameters") or {}, heartbeat)


def _run(file: Path) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", file.name]
    done = subprocess.run(command, cwd=file.resolve().parent, capture_output=True, text=True, check=False)  # noqa: S603  # Prefect's own
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_LAST_LINES:])
        raise ConfigError(f"file: {str(file)!r} is refused by `prefect deploy`:\n{said}")


def _current(client: SyncPrefectClient, wanted: Sequence[Listed]) -> list[DeploymentResponse]:
    """The deployments on the server that have the name and the entrypoint of one that is listed."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    names = DeploymentFilter(name=DeploymentFilterName(any_=sorted({one.name for one in wanted})))
    keys = {(one.name, one.entrypoint) for one in wanted}
    return [one for one in client.read_deployments(deployment_filter=names) if (one.name, one.entrypoint) in keys]


def _told(client: SyncPrefectClient, one: DeploymentResponse) -> dict[str, Any]:
    """What a deployment is, without what the server counts and dates."""
    said = one.model_dump(mode="json", include=set(_SAID))
    limit = one.global_concurrency_limit.limit if one.global_concurrency_limit else None
    schedules = [
        {"when": _when(part), **part.model_dump(mode="json", include={"active", "parameters"})}
        for part in one.schedules
    ]
    triggers = {
        trigger.name: {"enabled": trigger.enabled, **content(trigger)}
        for trigger in client.read_resource_related_automations(_resource(one))
    }
    return {**said, "limit": limit, "schedules": sorted(schedules, key=repr), "triggers": triggers}


def _pause_again(client: SyncPrefectClient, one: DeploymentResponse, before: Mapping[str, Any]) -> None:
    """Pauses what was paused before it was deployed again: the deployment, its schedules, its triggers."""
    if before["paused"] and not one.paused:
        client.pause_deployment(one.id)
    asleep = [part["when"] for part in before["schedules"] if not part["active"]]
    for part in one.schedules:
        if part.active and _when(part) in asleep:
            client.update_deployment_schedule(one.id, part.id, active=False)
    for trigger in client.read_resource_related_automations(_resource(one)):
        known = before["triggers"].get(trigger.name)
        if known and not known["enabled"] and trigger.enabled:
            client.pause_automation(trigger.id)


def _when(part: DeploymentSchedule) -> dict[str, Any]:
    """A schedule as a file has it; an interval without an anchor gets the moment at which it is deployed for one."""
    told: dict[str, Any] = part.schedule.model_dump(mode="json", exclude={"anchor_date"})
    return told


def _resource(one: DeploymentResponse) -> str:
    return f"prefect.deployment.{one.id}"
