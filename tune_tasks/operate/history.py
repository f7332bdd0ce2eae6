"""Reads the events of a log as records: one event, with the segment that it lies in and who wrote it.

Reads segment by segment and keeps none, however long the log is. This module must not lay out a line (`terminal`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tune_tasks.errors import invalid
from tune_tasks.events import Amended, Event, Judged
from tune_tasks.operate.words import TYPES, about
from tune_tasks.store import Objects, Segment, StudyLog
from tune_tasks.store.places import Place, study_log, study_objects
from tune_tasks.store.segment import Role, segment_key

_BLOCK = 64
"""Segments that are read at once when the newest events are looked for from the end."""


@dataclass(frozen=True, slots=True)
class Record:
    """An event of the log. `index` counts from 0 in its segment, `time` is when the segment was written, in seconds."""

    segment: int
    index: int
    time: float
    role: Role
    epoch: int
    writer: str
    event: Event

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        about_it = {name: getattr(self, name) for name in ("segment", "index", "time", "role", "epoch", "writer")}
        return {**about_it, "type": self.event.type, "event": self.event.model_dump(mode="json", exclude={"type"})}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are wanted: about a trial (only what they say of it), of some types, where from, and how many."""

    trial: int | None = None
    types: Collection[str] = ()
    start: int = 1
    last: int | None = None

    def __post_init__(self) -> None:
        for name in self.types:
            if name not in TYPES:
                raise invalid("type", name, f"allowed are {', '.join(TYPES)}", TYPES)
        if self.trial is not None and self.trial < 0:
            raise invalid("trial", self.trial, "must be at least 0")
        if self.start < 1:
            raise invalid("from", self.start, "the first segment is 1")
        if self.last is not None and self.last < 0:
            raise invalid("last", self.last, "must be at least 0")

    def records(self, segment: Segment) -> Iterator[Record]:
        """The events of a segment that pass."""
        for index, event in enumerate(segment.events):
            if self.types and event.type not in self.types:
                continue
            part = event if self.trial is None else about(event, self.trial)
            if part is not None:
                about_it = (segment.number, index, segment.time, segment.role, segment.epoch, segment.writer)
                yield Record(*about_it, part)


def read_events(
    place: Place,
    *,
    trial: int | None = None,
    types: Collection[str] = (),
    start: int = 1,
    last: int | None = None,
) -> Iterator[Record]:
    """Reads the events of a study in their order: from segment `start` on, and the `last` ones where that is given.

    `trial` keeps what is about one trial, `types` the events of these types. Raises `ConfigError`, `StudyNotFound`,
    `Unavailable`, and `CorruptLog` at the first segment that cannot be read; a later `start` reads on behind it.
    """
    wanted = Filter(trial, tuple(types), start, last)
    yield from _read(_log(study_objects(place), start), wanted, None)


def follow_events(
    place: Place,
    *,
    trial: int | None = None,
    types: Collection[str] = (),
    start: int = 1,
    last: int | None = None,
    poll: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Record]:
    """Reads the events as `read_events` does, then those that are committed from then on, until the study is done.

    Looks every `poll` seconds. A driver never waits for it.
    """
    wanted = Filter(trial, tuple(types), start, last)
    log = study_log(study_objects(place))
    done, head = log.load().done, log.head
    yield from _read(log, wanted, head)
    head = max(head, start - 1)
    while not done:
        before = head
        for segment in log.segments(head + 1):
            head, done = segment.number, _is_done(segment, known=done)
            yield from wanted.records(segment)
        if head == before:
            sleep(poll)


def _log(objects: Objects, start: int) -> StudyLog:
    """The log, which may be broken before the segment from which it is read."""
    if start > 1 and objects.read(segment_key(start)) is not None:
        return StudyLog(objects)
    return study_log(objects)


def _read(log: StudyLog, wanted: Filter, end: int | None) -> Iterator[Record]:
    """The records up to segment `end`, None for the newest."""
    if wanted.last is not None:
        yield from _last(log, wanted, end)
        return
    count = None if end is None else max(0, end - wanted.start + 1)
    for segment in islice(log.segments(wanted.start), count):
        yield from wanted.records(segment)


def _last(log: StudyLog, wanted: Filter, end: int | None) -> Iterator[Record]:
    """Looks from the end of the log backwards, so that the newest events of a long log come at once."""
    if end is None:
        log.load()
        end = log.head
    found: deque[Record] = deque()
    while end >= wanted.start and len(found) < (wanted.last or 0):
        first = max(wanted.start, end - _BLOCK + 1)
        block = islice(log.segments(first), end - first + 1)
        found.extendleft(reversed([record for segment in block for record in wanted.records(segment)]))
        end = first - 1
    yield from islice(found, max(0, len(found) - (wanted.last or 0)), None)


def _is_done(segment: Segment, *, known: bool) -> bool:
    for event in segment.events:
        if isinstance(event, Judged):
            known = known or event.done
        elif isinstance(event, Amended):
            known = False
    return known
