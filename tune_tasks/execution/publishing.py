"""How checkpoints get to the store while their trial goes on.

This module must not know what is in a checkpoint, or where it goes.
"""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias

from tune_tasks.execution.scratch import new_folder

Job: TypeAlias = Callable[[], None]

_WAITING = 2
"""Checkpoints that wait for the store before a report waits too: a slow store must not fill the disk."""


class Publisher(Protocol):
    """Does the writing to the store. A job must not raise."""

    def save(self, folder: Path, publish: Callable[[Path], None]) -> None:
        """Has a folder, or one file, published as it is now: it may change once this returns. Raises `OSError`."""
        ...

    def put(self, job: Job, *, urgent: bool = True) -> None:
        """Has something else done in its turn; what is not urgent is left out where too much waits already."""
        ...

    def settle(self) -> None:
        """Returns when everything so far is done."""
        ...


class Direct:
    """Does each job at once, where it is asked for."""

    def save(self, folder: Path, publish: Callable[[Path], None]) -> None:
        """Publishes the original; nothing is copied."""
        publish(folder)

    def put(self, job: Job, *, urgent: bool = True) -> None:  # noqa: ARG002  # nothing ever waits here
        """Does it."""
        job()

    def settle(self) -> None:
        """Nothing is ever open."""


class Background:
    """Does the jobs one after another on a thread of its own, which starts with the first."""

    def __init__(self) -> None:
        self._jobs: queue.Queue[Job] = queue.Queue(maxsize=_WAITING)
        self._thread: threading.Thread | None = None

    def save(self, folder: Path, publish: Callable[[Path], None]) -> None:
        """Publishes a copy. A real one: a hard link would change with the original."""
        stage = new_folder("checkpoint")
        copy = stage / folder.name

        def job() -> None:
            try:
                publish(copy)
            finally:
                shutil.rmtree(stage, ignore_errors=True)

        try:
            shutil.copytree(folder, copy) if folder.is_dir() else shutil.copy2(folder, copy)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
        self.put(job)

    def put(self, job: Job, *, urgent: bool = True) -> None:
        """Queues a job; waits while too many are queued already, or forgets it where it is not urgent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
            self._thread.start()
        if urgent or not self._jobs.full():
            self._jobs.put(job)

    def settle(self) -> None:
        """Waits for every job that was queued."""
        self._jobs.join()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            finally:
                self._jobs.task_done()
