"""Where a study is shown besides its own log: projections into tools that people look at, by name or entry point.

This page shows the protocol that a tracker fulfils; `tune_tasks.testing.trackers.TrackerContract` is its test. A
projection is written to and never believed: it holds nothing that the log does not, so it may be deleted, be slow or
be down. No tracker may be on the path of a trial or a decision, or change the study.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from tune_tasks.study import StudyState

GROUP = "tune_tasks.trackers"
"""The entry point group. An entry is a frozen pydantic model; its fields are the options that a spec may set."""


class Tracker(Protocol):
    """Shows a study in one place. Built from the options of the spec; what it remembers is only a shortcut."""

    def place(self, state: StudyState, url: str) -> str | None:
        """Where a person finds the study at `url`, without credentials; None: nowhere, then it is never updated."""
        ...

    def update(self, state: StudyState, url: str) -> Iterator[None]:
        """Brings the projection up to date, one short piece of work for each `next`, after any of which it may stop.

        Idempotent, also across processes and with two of them at once: it writes only what is new, and nothing twice.
        Raises `ConfigError` for what only an edit mends, and `Unavailable` for what it will catch up with later.
        """
        ...


__all__ = ["GROUP", "Tracker"]
