"""What `python -m tune_tasks_prefect setup` does: it makes what self-healing deployments need on a server, once.

What is there already is found, and what a person has paused or set stays so. This module must not delete anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tune_tasks.errors import ConfigError
from tune_tasks_prefect.automations import LOST, MISSED, Done, automations, settle
from tune_tasks_prefect.blocks import RayCluster, StudyStore, dashboard_of, variables
from tune_tasks_prefect.deployments import Listed, deploy, listed
from tune_tasks_prefect.fitness import answering, forgetful, unfit

if TYPE_CHECKING:
    from prefect.blocks.core import Block
    from prefect.client.orchestration import SyncPrefectClient

GPUS = "gpus"
"""The global concurrency limit whose slots are the GPUs."""


class Line(NamedTuple):
    """One thing on the server, and what became of it."""

    done: Done
    kind: str
    name: str


def setup(client: SyncPrefectClient, *, file: Path | None, gpus: int | None, pool_type: str) -> Iterator[Line]:
    """Sees to it that a server has the block types, the limit, the work pools, the deployments and the automations.

    Raises `ConfigError` before anything is deployed where a deployment names a limit or a block that is not there.
    """
    wanted = listed(file) if file else []
    for block in (StudyStore, RayCluster):
        yield Line(_register(client, block), "block type", block.get_block_type_slug())
    if gpus is not None:
        yield Line(_limit(client, GPUS, gpus), "concurrency limit", f"{GPUS}, {gpus} slots")
    missing = _missing(client, wanted)
    if missing:
        raise ConfigError("\n".join(missing))
    for pool in sorted({one.pool for one in wanted if one.pool}):
        yield Line(_pool(client, pool, pool_type), "work pool", pool)
    if file is not None:
        for change in deploy(client, file):
            yield Line(change.done, "deployment", change.name)
    heartbeat = _heartbeat(wanted)
    for automation in automations(heartbeat):
        after = f", after {MISSED * heartbeat}" if automation.name == LOST else ""
        yield Line(settle(client, automation), "automation", f"{automation.name}{after}")


def check(client: SyncPrefectClient) -> Iterator[str]:
    """Says what of Prefect is at hand. Raises `ConfigError` and `Unavailable` where it is not fit for use."""
    yield f"Prefect {answering(client)} answers at {client.api_url}"
    reason = unfit()
    yield f"No server can be started in this environment: {reason}" if reason else "A server can be started here too"
    if loss := forgetful(client):
        yield loss


def _register(client: SyncPrefectClient, block: type[Block]) -> Done:
    from prefect.exceptions import ObjectNotFound

    slug = block.get_block_type_slug()
    try:
        client.read_block_type_by_slug(slug)
        known = True
        client.read_block_schema_by_checksum(block._calculate_schema_checksum())  # noqa: SLF001  # as Prefect names it
    except ObjectNotFound:
        register: Any = block.register_type_and_schema  # it is typed without the option that keeps it synchronous
        register(_sync=True)
        return "changed" if known else "made"
    return "found"


def _limit(client: SyncPrefectClient, name: str, slots: int) -> Done:
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
    from prefect.exceptions import ObjectNotFound

    try:
        found = client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=slots))
        return "made"
    if found.limit == slots:
        return "found"
    client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=slots))
    return "changed"


def _pool(client: SyncPrefectClient, name: str, kind: str) -> Done:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.base import BaseWorker

    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        worker = BaseWorker.get_worker_class_from_type(kind)
        if worker is None:
            raise ConfigError(
                f"pool-type: {kind!r} is not known here; install its package, or make the pool yourself: "
                f"prefect work-pool create {name} --type {kind}"
            ) from None
        template = worker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=template))
        return "made"
    return "found"


def _missing(client: SyncPrefectClient, wanted: Sequence[Listed]) -> list[str]:
    """What the parameters of deployments name and the server has not, with the command that makes it."""
    lines = []
    for one in wanted:
        for parameter, look in _NAMED.items():
            name = one.parameters.get(parameter)
            try:
                if isinstance(name, str) and name:
                    look(client, name)
            except ConfigError as error:
                lines.append(f"deployment {one.name!r}: {error}")
    return lines


def _look_for_limit(client: SyncPrefectClient, name: str) -> None:
    from prefect.exceptions import ObjectNotFound

    try:
        client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        made = f"make it: prefect gcl create {name} --limit NUMBER"
        raise ConfigError(f"limit: {client.api_url} has no concurrency limit {name!r}; {made}") from None


_NAMED: dict[str, Callable[[SyncPrefectClient, str], object]] = {
    "limit": _look_for_limit,
    "store": lambda _, name: variables(name),
    "cluster": lambda _, name: dashboard_of(name, None),
}
"""The parameters of our flows that name what must be on the server, and what looks for it."""


def _heartbeat(wanted: Sequence[Listed]) -> timedelta:
    """The longest time between two signs of life of any run that is watched; of those served elsewhere, as set here."""
    from prefect.settings import get_current_settings

    here = get_current_settings().flows.heartbeat_frequency
    if here is None:
        raise ConfigError("PREFECT_FLOWS_HEARTBEAT_FREQUENCY: runs that give no sign of life cannot be watched; set it")
    own = timedelta(seconds=here)
    return max(own, *(one.heartbeat or own for one in wanted)) if wanted else own
