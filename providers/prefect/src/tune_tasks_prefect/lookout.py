"""What a launch looks out for at Prefect's server while it goes on: whether its flow run is still its own, and wanted.

A run that is marked as crashed may live, and a run that is cancelled may have no runner that ends it. This module must
not stop anything: it says so, in the thread of the launch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from datetime import UTC, datetime
from types import TracebackType
from typing import Self
from uuid import UUID

from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import Abort

from tune_tasks_prefect.asking import impatient

_EVERY = 15.0
"""Seconds between two looks."""
_GRACE = 60.0
"""Seconds in which the runner of a deployment's run ends it, where one is alive."""


class Cancelled(Abort):
    """The flow run was cancelled, and nobody but this process is left to end it."""


class TakenOver(Abort):
    """Another process executes this flow run now: what this one says of it would overwrite what that one does."""


class Lookout:
    """Looks every 15 seconds, on a thread of its own, for as long as the block lasts; call it to hear what was seen."""

    def __init__(self, *looks: Callable[[], None]) -> None:
        """Each of `looks` raises what shall end the launch, and nothing where the server does not answer."""
        self._looks = looks
        self._seen: BaseException | None = None
        self._over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=copy_context().run, args=(self._run,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def __call__(self) -> None:
        """Raises what was seen."""
        if self._seen is not None:
            raise self._seen

    def _run(self) -> None:
        while not self._over.wait(_EVERY):
            try:
                for look in self._looks:
                    look()
            except BaseException as error:  # noqa: BLE001  # it is for the thread of the launch
                self._seen = error
                return


def look_at_run() -> None:
    """Raises `Cancelled` and `TakenOver` where the flow run that this is in has become so; nothing outside a run.

    A run with a runner is left to it: that ends this process, and then calls the hooks.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None or run.state is None:
        return
    try:
        with impatient() as client:
            found = client.read_flow_run(run.id).state
            if found is None or found.id == run.state.id:
                return  # nothing happened since this process began to execute it
            states = client.read_flow_run_states(run.id)
    except Exception:  # noqa: BLE001  # the launch goes on, whatever became of Prefect's server
        return
    if _taken_over(states, run.state.timestamp):
        raise TakenOver(f"another process executes the flow run {run.id} now; this one ends")
    if found.type in {StateType.CANCELLING, StateType.CANCELLED} and _left(found, runner=run.deployment_id):
        raise Cancelled(f"the flow run {run.id} was cancelled")


def was_cancelled(id: UUID) -> bool:  # noqa: A002  # Prefect's word
    """Whether someone cancelled a flow run and nobody ended it: it crashed meanwhile, say, and was rescheduled."""
    try:
        with impatient() as client:
            states = client.read_flow_run_states(id)
    except Exception:  # noqa: BLE001  # as above
        return False
    asked = max((state.timestamp for state in states if state.type == StateType.CANCELLING), default=None)
    ended = max((state.timestamp for state in states if state.type == StateType.CANCELLED), default=None)
    return asked is not None and (ended is None or ended < asked)


def _taken_over(states: list[State], since: datetime) -> bool:
    """Whether a runner has started the run anew: then it was pending again."""
    return any(state.type == StateType.PENDING and state.timestamp > since for state in states)


def _left(state: State, runner: UUID | None) -> bool:
    """Whether nobody else ends a run that is cancelled; only the runs of deployments have a runner."""
    return runner is None or (datetime.now(UTC) - state.timestamp).total_seconds() > _GRACE
