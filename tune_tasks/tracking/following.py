"""Runs the trackers of a study: each for as long as there is something new and time is left, and none fails loudly.

A tracker that raises is said once and asked again later, less and less often. This module must not let a tracker's
failure reach who runs a study.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tune_tasks.errors import TuneError, Unavailable
from tune_tasks.plugins import trackers
from tune_tasks.spec import StudySpec
from tune_tasks.store.places import Place, study_log, study_objects
from tune_tasks.study import StudyState
from tune_tasks.tracking import Tracker

if TYPE_CHECKING:
    from tune_tasks.studies import Study

PATIENCE = 20.0
"""Seconds for which whoever ends a study lets a tracker catch up."""
TURN = 2.0
"""Seconds of one tracker, before the next has its turn."""
_IDLE, _BUSY = 0.5, 0.05
"""The share of its time in which a process writes that follows a study; the rest of it, it leaves the machine alone."""
_LONGEST = 30.0
"""Seconds without writing, at most."""
POLL = 1.0
"""Seconds between two looks into the log."""
_DEFAULT = StudySpec.model_fields["tracking"].default
_SOONEST, _LATEST = 5.0, 60.0
"""Seconds before a tracker that failed is asked again."""


@dataclass(slots=True)
class _Shown:
    """A tracker, and how it fared."""

    name: str
    tracker: Tracker
    failed: bool = False
    pause: float = _SOONEST
    due: float = 0.0
    behind: bool = True

    def pieces(self, state: StudyState, url: str) -> Iterator[None]:
        """The work to bring it up to date; none where it has no place."""
        if self.tracker.place(state, url) is not None:
            yield from self.tracker.update(state, url)


class Trackers:
    """The trackers of a study; they remember what they wrote, from one update to the next."""

    def __init__(self, spec: StudySpec, say: Callable[[str], None], *, default: bool = True) -> None:
        """`say` gets one line for each tracker that fails; without `default`, what every spec has is left out."""
        left_out = () if default else _DEFAULT
        self._all = [
            _Shown(plugin.name, tracker)
            for plugin, tracker in zip(spec.tracking, trackers(spec), strict=True)
            if plugin not in left_out
        ]
        self._say = say

    def __len__(self) -> int:
        return len(self._all)

    @property
    def failing(self) -> bool:
        """Whether a tracker failed when it was asked last."""
        return any(shown.failed for shown in self._all)

    def places(self, state: StudyState, url: str) -> dict[str, str]:
        """Where a person finds the study, by tracker. Raises `ConfigError` where one cannot have a place."""
        found = {shown.name: shown.tracker.place(state, url) for shown in self._all}
        return {name: place for name, place in found.items() if place is not None}

    def update(
        self, state: StudyState, url: str, go_on: Callable[[], bool] = lambda: True, *, turn: float = TURN
    ) -> bool:
        """Brings each tracker up to date unless it failed a moment ago; true where all of them are.

        Between two pieces of work one ends early after the seconds of its `turn`, and all where `go_on` says no.
        """
        for shown in self._all:
            end = time.monotonic() + turn
            if time.monotonic() >= shown.due and go_on():
                self._update(shown, state, url, lambda end=end: go_on() and time.monotonic() < end)  # type: ignore[misc]
            else:
                shown.behind = True
        return not any(shown.behind for shown in self._all)

    def insist(self, state: StudyState, url: str) -> None:
        """Brings each tracker up to date; raises what the first raised that failed, after all had their turn."""
        errors: list[tuple[str, Exception]] = []
        for shown in self._all:
            try:
                deque(shown.pieces(state, url), maxlen=0)
            except Exception as error:  # noqa: BLE001  # as below
                errors.append((shown.name, error))
        for name, raised in errors:
            kind = type(raised) if isinstance(raised, TuneError) else TuneError
            raise kind(f"tracking: {name}: {in_one_line(raised)}") from raised

    def _update(self, shown: _Shown, state: StudyState, url: str, go_on: Callable[[], bool]) -> None:
        shown.behind = True
        try:
            for _ in shown.pieces(state, url):
                if not go_on():
                    return
        except Exception as error:  # noqa: BLE001  # a plug-in may raise anything, and the study goes on
            shown.due = time.monotonic() + shown.pause
            shown.pause = min(2 * shown.pause, _LATEST)
            if not shown.failed:
                self._say(f"tracking: {shown.name}: {in_one_line(error)}")
            shown.failed = True
            return
        shown.failed, shown.pause, shown.due, shown.behind = False, _SOONEST, 0.0, False


def catch_up(study: Study, *, default: bool = True, patience: float = PATIENCE) -> None:
    """Shows a study as it is now, in this process, within so many seconds a tracker and without ever raising.

    What is left out for lack of time, or fails, is one line on stderr; `tune-tasks track` brings it up to date.
    `default` as in `Trackers`: what shows the study in the registry of its promotion is brought up to date by that.
    """
    if study.clock is not None:  # nothing of it is real
        return
    try:
        shown = Trackers(study.spec, to_stderr, default=default)
        if not shown.update(study.state, study.url, turn=patience) and not shown.failing:
            to_stderr(behind(study.url))
    except TuneError as error:  # a tracker that is not installed here
        to_stderr(f"tracking: {in_one_line(error)}")


def behind(url: str) -> str:
    """What a person is told where there was no time to show all."""
    return f"tracking: is behind; bring it up to date with: tune-tasks track {url}"


def track(place: Place, *, follow: bool = False, say: Callable[[str], None] | None = None) -> dict[str, str]:
    """Shows a study in everything that its spec names under `tracking`, and returns where, by tracker.

    With `follow` it goes on until the study is done, and asks what fails again later; `say` gets a line about it.
    Otherwise what fails is raised, after the other trackers had their turn: `ConfigError`, `Unavailable`. Raises
    `StudyNotFound` and `CorruptLog` too.
    """
    followed = Followed(place, say or to_stderr)
    while follow and not (followed.update() and followed.state.done):
        time.sleep(POLL)
        followed.read()
    if not follow:
        followed.shown.insist(followed.state, followed.log.url)
    return followed.shown.places(followed.state, followed.log.url)


class Followed:
    """A study whose log is read, and shown, again and again."""

    def __init__(self, place: Place, say: Callable[[str], None]) -> None:
        """Raises `ConfigError`, `StudyNotFound`, `Unavailable` and `CorruptLog`."""
        self.log = study_log(study_objects(place))
        self.state = self.log.load()
        self.shown = Trackers(self.state.spec, say)
        self._whole, self._shown_at, self._rested = True, 0, 0.0

    def update(self, go_on: Callable[[], bool] = lambda: True, *, at_once: bool = False) -> bool:
        """Shows what is new, and returns whether nothing is left; a study that goes on it leaves alone for a while.

        `at_once`: not this time.
        """
        begun, done = time.monotonic(), self.state.done
        if self.log.head == self._shown_at:
            return True
        if begun < self._rested and not (done or at_once):
            return False
        current = self.shown.update(self.state, self.log.url, go_on, turn=math.inf if done else TURN)
        self._shown_at = self.log.head if current else 0
        self._rested = time.monotonic() + _rest(time.monotonic() - begun)
        return current

    def read(self) -> None:
        """Takes in what was committed since; where the store does not answer, all of it next time."""
        try:
            if self._whole:
                self.log.catch_up(self.state)
            else:
                self.state = self.log.load()
            self._whole = True
        except Unavailable:
            self._whole = False


def _rest(worked: float) -> float:
    """How long to leave the machine alone after so many seconds of writing.

    Longer where more is running than there are cores: a server on this machine takes them from the trials, however
    low the priority of who asks it.
    """
    share = _BUSY if os.getloadavg()[0] > (os.cpu_count() or 1) else _IDLE
    return min(worked / share - worked, _LONGEST)


def to_stderr(line: str) -> None:
    """Says a line to a person."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # for people


def in_one_line(error: Exception) -> str:
    """What an error says; of one that is not ours also its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, TuneError) else f"{type(error).__name__}: {text}"
