"""The end of a launch step, looked for by someone who waits elsewhere, such as an orchestrator's event loop.

It reads what is new in the log and asks for the job only where nothing is new, so that hundreds of launches can be
waited for by one process. This module must not hold a study in memory, and must not run or record anything.
"""

from __future__ import annotations

import time
from typing import Literal, NamedTuple, TypeAlias

from tune_tasks.events import Event, Launched, Requested
from tune_tasks.execution.jobs import ALIVE, Jobs
from tune_tasks.store import Objects
from tune_tasks.store.log import StudyLog
from tune_tasks.store.places import study_objects

Sign: TypeAlias = Literal["over", "job"]

_QUIET = 60.0
"""Seconds without anything new in the log after which the job is asked for."""


class Wait(NamedTuple):
    """The wait for the launch step of a batch, as small values that another process can go on from."""

    url: str
    batch: str
    by: str
    """Who waits, as the log has it."""
    job: str
    """The submission id of the job that was there when the wait began."""
    position: int
    """Where the log ended then."""
    losses: int = 0
    """Jobs that were lost while this one waited."""


class Watch:
    """Looks how a launch step stands that someone waits for."""

    def __init__(self, wait: Wait, jobs: Jobs, *, objects: Objects | None = None) -> None:
        """`jobs` of the cluster where the job is; `objects` of the study, where they are open. Touches nothing yet."""
        self._wait, self._jobs = wait, jobs
        self._log = StudyLog(objects or study_objects(wait.url))
        self._read = wait.position
        self._due = 0.0
        self.news: list[Event] = []
        """What the last look found in the log."""

    def look(self) -> Sign | None:
        """What ends the wait: the step is `over`, or its `job` is not there any more; None while it goes on.

        Raises `Unavailable` where the store or the cluster does not answer.
        """
        self.news = []
        for segment in self._log.segments(self._read + 1, whole=False):
            self._read = segment.number
            self.news += segment.events
        if any(isinstance(event, Launched) and event.batch == self._wait.batch for event in self.news):
            return "over"
        now = time.monotonic()
        if self.news:
            self._due = now + _QUIET
        if now < self._due:
            return None
        condition = self._jobs.look(self._wait.job).condition
        self._due = now + _QUIET  # not before the cluster has answered: else one that is away would seem to be there
        return None if condition in ALIVE else "job"

    def stop(self) -> bool:
        """Stops the job, unless someone else has asked for it since; false where it goes on, or was over."""
        later = (event for segment in self._log.segments(self._wait.position + 1) for event in segment.events)
        if any(isinstance(event, Requested) and event.by != self._wait.by for event in later):
            return False
        return self._jobs.stop(self._wait.job)
