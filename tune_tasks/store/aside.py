"""Does what may take long beside the work that must not wait: one job after another, on a thread of its own.

This module must not know what a job does. A job that fails is logged, and nothing more: who needs to know, says so
in the job.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Protocol, TypeAlias

Job: TypeAlias = Callable[[], None]

WAITING = 2
"""Jobs that wait for their turn before the next one is waited for, or left out."""

_log = logging.getLogger(__name__)


class Aside(Protocol):
    """Does jobs in their order."""

    def put(self, job: Job, *, urgent: bool = True) -> bool:
        """Has a job done in its turn. What is not urgent is left out where too much waits already; False then."""
        ...

    def settle(self) -> None:
        """Returns when everything so far is done."""
        ...


class AtOnce:
    """Does each job where it is asked for, so that everything happens in one order."""

    def put(self, job: Job, *, urgent: bool = True) -> bool:  # noqa: ARG002  # nothing ever waits here
        """Does it."""
        job()
        return True

    def settle(self) -> None:
        """Nothing is ever open."""


class Background:
    """Does the jobs on a thread that starts with the first of them, and does not keep the process alive."""

    def __init__(self) -> None:
        self._jobs: queue.Queue[Job] = queue.Queue(maxsize=WAITING)
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def put(self, job: Job, *, urgent: bool = True) -> bool:
        """Queues a job; waits while too many are queued already, or leaves it out where it is not urgent."""
        if self._process != os.getpid():  # a fork has no threads, and its queue may wake one of the parent's for ever
            self._jobs, self._thread, self._process = queue.Queue(maxsize=WAITING), None, os.getpid()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="aside", daemon=True)
            self._thread.start()
        if self._jobs.full() and not urgent:
            return False
        self._jobs.put(job)
        return True

    def settle(self) -> None:
        """Waits for every job that this process queued."""
        if self._process == os.getpid():
            self._jobs.join()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            except Exception:  # noqa: BLE001  # a thread that dies would keep everyone waiting
                _log.exception("what was to be done beside failed")
            finally:
                self._jobs.task_done()
