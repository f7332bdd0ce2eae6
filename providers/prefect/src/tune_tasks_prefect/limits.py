"""A global concurrency limit of Prefect's that is kept: as many of its slots as a launch uses GPUs, or no launch.

Prefect's own context manager takes no slot, and says nothing, where a limit is switched off, and ends the work where
its server is away for a moment. Here a limit that cannot be kept is an error, and a server that is away keeps the slots
until it is back. This module must not know what a launch does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

from httpx import HTTPError, HTTPStatusError
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.client.schemas.responses import ConcurrencyLimitWithLeaseResponse
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound

from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks_prefect.asking import impatient

if TYPE_CHECKING:
    from tune_tasks.spec import StudySpec

_LEASE = 300.0
"""Seconds for which the server keeps the slots of a process that it does not hear of any more."""
_PAUSE, _REMINDER = 1.0, 300.0
"""Seconds: the shortest wait for slots, and the time between two lines of the log about it."""
_LOCKED, _GONE = 423, 410


def gpus(spec: StudySpec) -> int:
    """As many GPUs as the study's trials use at once, as whole ones; a study without GPUs counts as one.

    Raises `ConfigError` where that is not known, because the study takes what the cluster has.
    """
    concurrency = 1 if spec.execution.runner == "inline" else spec.budget.concurrency
    if concurrency is None:
        raise ConfigError(
            "limit: how many GPUs the study takes is not known while it takes what the cluster has; "
            "set budget.concurrency in the spec, or among the overrides"
        )
    each = spec.resources.gpu + sum(bundle.gpu for bundle in spec.resources.bundles)
    return max(math.ceil(each * concurrency), 1)


class Slots:
    """Slots of a limit, which are this process's for as long as it renews them, and five minutes longer."""

    def __init__(self, limit: str, wanted: int, log: Any) -> None:
        """Takes none yet; `log` is the logger of the run."""
        self._limit, self._wanted, self._log = limit, wanted, log
        self._lease: UUID | None = None
        self._since = self._renewed = 0.0

    def acquire(self, go_on: Callable[[], None]) -> None:
        """Waits until the slots are free; `go_on` is called every second, and ends the wait by what it raises.

        Raises `ConfigError` for a limit that is not there, is off, leaks or is too small, and `Unavailable` where the
        server does not answer.
        """
        self._check()
        told = -math.inf
        while (after := self._take()) is not None:
            if time.monotonic() - told >= _REMINDER:
                told = time.monotonic()
                self._log.info("Waits for %s", self._wait())
            end = time.monotonic() + max(after, _PAUSE)
            while time.monotonic() < end:
                go_on()
                time.sleep(_PAUSE)

    def renew(self) -> None:
        """Keeps the slots; a server that is away gives them to nobody. Raises `Unavailable` where they are lost."""
        if self._lease is None:
            return
        try:
            with impatient() as client:
                client.renew_concurrency_lease(self._lease, _LEASE)
            self._renewed = time.monotonic()
        except HTTPStatusError as error:
            if error.response.status_code == _GONE:
                self._regain()
        except HTTPError:
            return

    def release(self) -> None:
        """Gives the slots back; where the server does not answer, it frees them after the lease."""
        if self._lease is not None:
            with suppress(HTTPError), impatient() as client:
                client.release_concurrency_slots_with_lease(self._lease)
        self._lease = None

    def _check(self) -> None:
        """Refuses a limit that would not limit, and says which command mends it."""
        try:
            with get_client(sync_client=True) as client:
                found = client.read_global_concurrency_limit_by_name(self._limit)
        except ObjectNotFound:
            raise self._missing() from None
        except HTTPError as error:
            raise _away(error) from error
        name = self._limit
        if not found.active:
            raise ConfigError(f"limit: {name!r} is switched off, so it limits nothing; prefect gcl enable {name}")
        if found.slot_decay_per_second:
            raise ConfigError(
                f"limit: the slots of {name!r} become free by themselves, {found.slot_decay_per_second:g} a second, "
                f"while the GPUs are in use; prefect gcl update {name} --slot-decay-per-second 0"
            )
        if found.limit < self._wanted:
            raise ConfigError(
                f"limit: the study uses {self._wanted} GPUs at once, and {name!r} has {found.limit} slots; set a "
                f"smaller budget.concurrency, or: prefect gcl update {name} --limit {self._wanted}"
            )

    def _take(self) -> float | None:
        """Takes the slots; else gives the seconds after which to ask again."""
        context = FlowRunContext.get()
        run = context.flow_run if context is not None else None
        holder = ConcurrencyLeaseHolder(type="flow_run", id=run.id) if run is not None else None
        try:
            with get_client(sync_client=True) as client:
                answer = client.increment_concurrency_slots_with_lease(
                    [self._limit], self._wanted, "concurrency", _LEASE, holder
                )
        except HTTPStatusError as error:
            if error.response.status_code == _LOCKED:
                return float(error.response.headers.get("Retry-After", _PAUSE))
            raise _away(error) from error
        except HTTPError as error:
            raise _away(error) from error
        granted = ConcurrencyLimitWithLeaseResponse.model_validate(answer.json())
        if not granted.limits:  # deleted a moment ago: the server gives a lease of nothing
            raise self._missing()
        self._lease = granted.lease_id
        self._since = self._renewed = time.monotonic()
        return None

    def _regain(self) -> None:
        """Takes the slots anew where the server does not know the lease any more.

        A server that was killed counts the slots of the leases that it has forgotten, for nobody. While this one could
        not have run out, they are given back first: else every slot would be lost with the server.
        """
        try:
            if time.monotonic() - self._renewed < _LEASE:
                with impatient() as client:
                    client.release_concurrency_slots([self._limit], self._wanted, time.monotonic() - self._since)
            self._lease = None
            lost = self._take() is not None
        except HTTPError as error:
            raise _away(error) from error
        if lost:
            raise Unavailable(f"limit: the server has given away the slots of this launch; it waits for {self._wait()}")

    def _wait(self) -> str:
        name = self._limit
        return (
            f"{self._wanted} slots of the limit {name!r}; who has them: prefect gcl inspect {name}; where nobody does, "
            f"after the server was killed: prefect gcl update {name} --active-slots 0"
        )

    def _missing(self) -> ConfigError:
        name, wanted = self._limit, self._wanted
        return ConfigError(
            f"limit: there is no limit {name!r}; make it with: prefect gcl create {name} --limit {wanted}"
        )


def _away(error: HTTPError) -> Unavailable:
    return Unavailable(f"limit: Prefect's server does not answer: {type(error).__name__}: {error}")
