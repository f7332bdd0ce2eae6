"""Runs trials one at a time in this process, on the thread that waits: for a debugger, for tests, and for no Ray.

Each message is delivered while the objective still stands at the line that caused it, so a stop that is decided then
takes effect at that very report. An objective that ends the process ends everything.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tune_tasks.execution import Message, Returned, TrialTask, inputs
from tune_tasks.execution.attempt import Attempt, Workbench, Workload
from tune_tasks.execution.output import Tee
from tune_tasks.execution.publishing import Direct
from tune_tasks.session import TrialStopped
from tune_tasks.spec import StudySpec
from tune_tasks.store import Objects


class InlineRunner:
    """One slot: this process. `wait` runs one task to its end, however long that takes."""

    slots = 1

    def __init__(
        self,
        url: str,
        spec: StudySpec,
        objective: Any,
        folder: str | None = None,
        *,
        max_budget: int | None = None,
        objects: Objects | None = None,
        loaders: Mapping[str, Any] | None = None,
    ) -> None:
        """`objects`: the store at `url` where it is open already, so that credentials in its URL are of use.

        `loaders`: of the inputs, in place of those in the spec.
        """
        self._folder, self._loaders = folder, spec.loaders if loaders is None else loaders
        self._bench = Workbench(
            Workload.of(url, spec, objective, folder, max_budget),
            f"{socket.gethostname()}:{os.getpid()}",
            self._emit,
            Direct(),
            lambda upload: Tee(url, upload),
            interruptible=True,
            objects=objects,
        )
        self._deliver: Callable[[Message], None] = lambda _: None
        self._tasks: deque[TrialTask] = deque()
        self._messages: deque[Message] = deque()
        self._current: Attempt | None = None
        self._thread = 0
        self._broken: BaseException | None = None

    def open(self, deliver: Callable[[Message], None]) -> None:
        """Forgets the tasks of an earlier driver; a constructed objective is kept, as are the inputs.

        Raises `ConfigError` where an input cannot be loaded.
        """
        if self._loaders:
            loaded, self._loaders = inputs.load(self._loaders, self._folder), {}
            self._bench.workload = replace(self._bench.workload, inputs=loaded)
        self._tasks.clear()
        self._messages.clear()
        self._deliver, self._broken = deliver, None

    def room(self, waiting: int) -> int:  # noqa: ARG002  # there is one worker, however many wait
        """One task, when there is none."""
        return 0 if self._tasks else 1

    def submit(self, tasks: Sequence[TrialTask]) -> None:
        """Keeps the tasks for `wait`."""
        self._tasks.extend(tasks)

    def wait(self, timeout: float) -> None:  # noqa: ARG002  # it never has to wait
        """Runs the next task to its end. Raises what `deliver` raises, and `KeyboardInterrupt`."""
        self._thread = threading.get_ident()
        self._hand_over()
        if not self._tasks:
            return
        self._current = Attempt(self._bench, self._tasks.popleft())
        try:
            with suppress(TrialStopped):  # by an error of the driver outside of the objective, which is raised below
                self._bench.run(self._current)
        finally:
            self._current = None
        if self._broken is not None:
            raise self._broken

    def stop(self, trial: int, *, pause: bool) -> None:
        """Asks the trial that runs to end; one that has not begun is given back."""
        if self._current is not None and self._current.task.trial == trial:
            self._current.session.stop(pause=pause)
        for task in [task for task in self._tasks if task.trial == trial]:
            self._tasks.remove(task)
            self._messages.append(Returned(task.trial, task.attempt))

    def avoid(self, nodes: Collection[str]) -> None:
        """Does nothing: there is one worker, on no node of a cluster."""

    def close(self) -> None:
        """Forgets the tasks; nothing runs beside the caller."""
        self._tasks.clear()

    def _emit(self, message: Message) -> None:
        """Delivers at once; what another thread of the objective reports is delivered with the next message."""
        self._messages.append(message)
        if threading.get_ident() == self._thread:
            self._hand_over()

    def _hand_over(self) -> None:
        """Delivers what there is. An error in there is the driver's: it must end the trial, not look like its own."""
        while self._messages and self._broken is None:
            message = self._messages.popleft()
            try:
                self._deliver(message)
            except BaseException as error:
                if self._current is None:
                    raise
                self._broken = error
                raise TrialStopped("the driver failed") from error
