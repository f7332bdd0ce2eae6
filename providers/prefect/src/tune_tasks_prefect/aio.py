"""Steps for async flows: the blocking call runs on a thread of its own, and ends when nobody waits for it any more.

As in Prefect's own collections each task has a twin with an `a` before its name, which is awaited. This module must not
know what a step does.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from prefect import Task
from prefect.context import get_run_context
from prefect.exceptions import MissingContextError

P = ParamSpec("P")
R = TypeVar("R")

_deserted: ContextVar[threading.Event | None] = ContextVar("_deserted", default=None)


class Interrupted(BaseException):
    """Nobody waits for the step any more: it ends as after Ctrl-C. Not for flows to catch."""


class Step(Task[P, R]):
    """A task that may be awaited: called in an async flow or task, it gives what its twin gives.

    So `await sample(...)` and `await asample(...)` are the same there, and neither holds up the event loop. In a sync
    flow, in a thread, with `submit` and `map`, and outside a run, it is a sync task like any other.
    """

    twin: Task[..., Any]

    if not TYPE_CHECKING:  # typed as the sync task that it mostly is; who wants the types awaits the twin

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Runs the task, or gives the twin's coroutine."""
            return self.twin(*args, **kwargs) if in_async_run() else super().__call__(*args, **kwargs)

    def with_options(self, **options: Any) -> Step[P, R]:
        """The task with other options, which its twin has too."""
        return with_twin(super().with_options(**options), self.twin.with_options(**options))


def with_twin(task: Task[P, R], twin: Task[..., Any]) -> Step[P, R]:
    """Makes a step of a task and of the one that is awaited in its place."""
    task.__class__ = Step  # Prefect makes the copies of a task itself, and always as a plain Task
    step = cast("Step[P, R]", task)
    step.twin = twin
    return step


def awaited(function: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """The async twin of a function, named with an `a` before its name."""

    @wraps(function)
    async def twin(*args: P.args, **kwargs: P.kwargs) -> R:
        return await on_a_thread(function, *args, **kwargs)

    twin.__name__ = twin.__qualname__ = f"a{function.__name__}"
    return twin


async def on_a_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls a function on a thread, with the context of the caller; where the wait ends early, tells it by `heed`."""
    deserted = threading.Event()
    token = _deserted.set(deserted)
    try:
        return await asyncio.to_thread(function, *args, **kwargs)
    finally:
        deserted.set()  # after a result it is nobody's any more
        _deserted.reset(token)


def heed() -> None:
    """Raises `Interrupted` on a thread whose result nobody waits for any more; a step asks at every turn.

    Without it, a flow that is cancelled would hang until its thread ends, which a launch does after hours.
    """
    deserted = _deserted.get()
    if deserted is not None and deserted.is_set():
        raise Interrupted


def in_async_run() -> bool:
    """Whether the caller is an async flow or task, on its event loop."""
    try:
        asyncio.get_running_loop()
        context: Any = get_run_context()
    except (RuntimeError, MissingContextError):
        return False
    return bool((getattr(context, "task", None) or context.flow).isasync)
