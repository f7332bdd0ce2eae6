"""The log of a study: the only writer and reader of its segments, and so of everything that is true.

No clock, lease or lock orders writers; the numbers of the segments do (DESIGN D2). This module must not delete or
overwrite a segment, must not skip one that it cannot read, and must not know what an event decides.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

from tune_tasks.errors import CorruptLog, Fenced, StudyNotFound, TuneError, Unavailable
from tune_tasks.events import Created, Event
from tune_tasks.store import segment as codec
from tune_tasks.store import snapshots
from tune_tasks.store.aside import Aside, Background
from tune_tasks.store.segment import Role, Segment, fingerprint, segment_key, segment_number
from tune_tasks.store.snapshot import Position
from tune_tasks.study import StudyState

if TYPE_CHECKING:
    from tune_tasks.store import Objects

SNAPSHOT_EVERY = 44
"""Segments between two snapshots: so many are replayed at most when a study is opened, with fewer than 50 reads."""

_WINDOW = 64
"""Segments that are in memory at once while a log is read."""

_log = logging.getLogger(__name__)


class StudyLog:
    """One reader's and writer's position in a study's log. Not for two threads at once."""

    def __init__(self, objects: Objects, *, aside: Aside | None = None) -> None:
        """`aside` does what a commit must not wait for, such as snapshots; by default a thread of this log's own."""
        self.objects = objects
        self.aside = aside or Background()
        self._at = Position()
        self._last_snapshot = 0
        self._writer = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"

    def __repr__(self) -> str:
        return f"<log at {self.url}, segment {self.head}>"

    @property
    def url(self) -> str:
        """Where the study lives, without credentials."""
        return self.objects.url

    @property
    def head(self) -> int:
        """The number of the newest segment that was read or written here; 0 before any."""
        return self._at.number

    @property
    def snapshot_due(self) -> bool:
        """Whether so much was committed since the last snapshot that opening the study would become slow."""
        return self.head - self._last_snapshot >= SNAPSHOT_EVERY

    def exists(self) -> bool:
        """Tells whether there is a study. Raises `CorruptLog` where there is one without its beginning."""
        return self.objects.read(segment_key(1)) is not None or self._begun()

    def create(self, event: Created, role: Role = "step") -> bool:
        """Begins a study; False where there is one already, whoever created it."""
        return not self._begun() and self._append(Position(study=event.study), [event], role, 0)

    def load(self) -> StudyState:
        """Reads what is true now: the newest usable snapshot, and every segment after it.

        Raises `StudyNotFound`, `Unavailable`, and `CorruptLog` where a segment is missing, changed, foreign, of a
        newer format, or does not follow from the ones before. The position moves only where all of it was read.
        """
        state, at = self._resume()
        self._last_snapshot = at.number
        self._at = self._fold(state, at, whole=True)
        if self.head == 0:
            raise StudyNotFound(f"{self.url}: there is no study here")
        return state

    def catch_up(self, state: StudyState) -> int:
        """Applies to `state`, which is as of this position, what was committed since; returns how many segments.

        Cheaper than `load` where little is new: one read finds out that nothing is. After an error, `load` again.
        """
        before = self.head
        self._at = self._fold(state, self._at, whole=False)
        return self.head - before

    def commit(self, events: Sequence[Event], *, role: Role, epoch: int) -> bool:
        """Commits events as the next segment, all or none. True: they are in the log, and survive a power failure.

        False: someone else has that number; `load` (or `catch_up`) and decide anew. The position stays as it was.
        `epoch` is the driver's own, 0 for a step. Raises `ValueError` for an event that JSON would change and for a
        segment above `segment.LIMIT`, `Fenced` for a driver that is known to have been replaced, and `Unavailable`
        where the store did not say whether it landed.
        """
        if not self.head:
            raise ValueError("load or create the study before committing to it")
        if role == "driver" and epoch < self._at.epoch:
            raise Fenced(f"{self.url}: a driver of epoch {self._at.epoch} took this study over from epoch {epoch}")
        return self._append(self._at, events, role, epoch)

    def segments(self, start: int = 1, *, whole: bool = True) -> Iterator[Segment]:
        """Reads and verifies the segments from `start` on. Raises `CorruptLog`; ends at the newest segment.

        Not `whole`: for one who looks again and again, it is not asked whether one is missing before a later one.
        """
        for segment, _ in self._tail(Position(start - 1), whole=whole, anchored=start == 1):
            yield segment

    def snapshot(self, state: StudyState) -> None:
        """Has a snapshot of `state`, which must be as of this position, written beside what comes next.

        One that fails costs only a warning; one that comes while others still wait for a slow store is left out.
        """
        copy, at = state.copy(), self._at

        def write() -> None:
            try:
                snapshots.write(self.objects, copy, at)
            except (TuneError, TypeError, ValueError) as error:
                _log.warning("%s: no snapshot at segment %d, the log has it all: %s", self.url, at.number, error)

        self._last_snapshot = self.head  # also where it fails: the next try is due when there is as much again
        self.aside.put(write, urgent=False)

    def settle(self) -> None:
        """Waits for what is done aside. Without it a process that ends may leave that out."""
        self.aside.settle()

    def _append(self, at: Position, events: Sequence[Event], role: Role, epoch: int) -> bool:
        segment = Segment(
            study=at.study,
            number=at.number + 1,
            epoch=epoch,
            role=role,
            writer=self._writer,
            commit=secrets.token_hex(16),
            previous=at.chain,
            time=time.time(),
            events=tuple(events),
        )
        data = codec.encode(segment)
        if not self._landed(segment_key(segment.number), data):
            return False
        self._at = self._after(at, segment, data)
        return True

    def _landed(self, key: str, data: bytes) -> bool:
        """Creates an object, and settles by reading it back what an unclear reply means."""
        unclear: Unavailable | None = None
        try:
            if self.objects.create(key, data):
                return True
        except Unavailable as error:
            unclear = error
        found = self.objects.read(key)
        if found is None:
            raise unclear or Unavailable(f"{self.url}: {key} was there a moment ago and is not now; try again later")
        return found == data  # the random commit id is in there

    def _resume(self) -> tuple[StudyState, Position]:
        """The newest snapshot that is one of this log, or the beginning."""
        for state, at in snapshots.newest(self.objects):
            key = segment_key(at.number)
            data = self.objects.read(key)
            if data is not None and fingerprint(data) == at.chain:
                return state, at
            if data is None and self._study() in {"", at.study}:
                raise CorruptLog(f"{self.url}/{key} is missing, but there is a snapshot of it (digest {at.chain})")
            _log.warning("%s: the snapshot at segment %d is not one of this log; passed over", self.url, at.number)
        return StudyState(), Position()

    def _study(self) -> str:
        """The id of the study by its first segment; "" where there is none."""
        data = self.objects.read(segment_key(1))
        return codec.decode(data, 1, self.url).study if data is not None else ""

    def _fold(self, state: StudyState, at: Position, *, whole: bool) -> Position:
        for segment, after in self._tail(at, whole=whole):
            try:
                for event in segment.events:
                    state.apply(event)
            except Exception as error:  # whatever the fold raises, the log does not fit together
                raise CorruptLog(
                    f"{self.url}/{segment_key(segment.number)}: does not follow from the segments before: "
                    f"{type(error).__name__}: {error}"
                ) from error
            if state.study != segment.study:
                raise CorruptLog(
                    f"{self.url}/{segment_key(segment.number)}: is of study {segment.study}, not of {state.study}"
                )
            at = after
        return at

    def _tail(self, at: Position, *, whole: bool, anchored: bool = True) -> Iterator[tuple[Segment, Position]]:
        """Reads, verifies and yields the segments after `at`, each with the position after it.

        Not `anchored`: what was before the first of them is not known, so its study and chain are taken as they are.
        """
        for number, data in self._bodies(at.number + 1, whole=whole):
            segment = codec.decode(data, number, self.url)
            if not anchored:
                at, anchored = replace(at, chain=segment.previous, study=segment.study), True
            at = self._after(at, segment, data)
            yield segment, at

    def _after(self, at: Position, segment: Segment, data: bytes) -> Position:
        key = f"{self.url}/{segment_key(segment.number)}"
        if segment.study != (at.study or segment.study):
            raise CorruptLog(f"{key}: is of study {segment.study}, not of {at.study}")
        if segment.previous != at.chain:
            raise CorruptLog(
                f"{key}: follows a segment with digest {segment.previous}, but the one before has {at.chain}"
            )
        if segment.role == "driver" and segment.epoch < at.epoch:
            raise CorruptLog(f"{key}: is by a driver of epoch {segment.epoch}, after one of epoch {at.epoch}")
        epoch = segment.epoch if segment.role == "driver" else at.epoch
        return Position(segment.number, fingerprint(data), segment.study, epoch)

    def _bodies(self, start: int, *, whole: bool) -> Iterator[tuple[int, bytes]]:
        """Reads segments in order up to the first that is absent, several at once where that saves time.

        With `whole` it asks first which there are, and reads those: none too many, and none that is missing unseen.
        """
        width, lanes = 1, self.objects.lanes
        newest = self._newest(start) if whole else 0
        with ThreadPoolExecutor(lanes) as pool:
            while True:
                numbers = range(start, min(start + _WINDOW, newest + 1) if start <= newest else start + width)
                answers = pool.map(self._body, numbers) if lanes > 1 else map(self._body, numbers)
                found = [data for data in takewhile(lambda data: data is not None, answers) if data is not None]
                yield from enumerate(found, start)
                start += len(found)
                if start <= newest and len(found) < len(numbers):
                    raise self._gap(start, segment_key(newest))
                if len(found) < len(numbers):
                    if whole and start == 1:
                        self._begun()
                    return
                width = 1 if start <= newest + 1 else min(4 * width, lanes)

    def _body(self, number: int) -> bytes | None:
        return self.objects.read(segment_key(number))

    def _newest(self, start: int) -> int:
        """The newest segment from `start` on, by a listing of each thousand; 0 where there is none.

        The next thousand is looked at as soon as the segment after the first absent one would be in it.
        """
        newest, listed = 0, start // 1000 - 1
        while listed < max(start, newest + 2) // 1000:
            listed += 1
            keys = self.objects.list(segment_key(1000 * listed)[: -len("000.jsonl")])
            newest = max((number for key in keys if (number := segment_number(key) or 0) >= start), default=newest)
        return newest

    def _begun(self) -> bool:
        """Looks whether there is a log, or a snapshot of one, though its beginning was absent when it was read.

        Then either it has been written since (True), or it is lost: a log that seemed not to be there would be begun
        anew.
        """
        later = [*self.objects.list("log/"), *self.objects.list(snapshots.FOLDER)]
        if not later:
            return False
        if self._body(1) is not None:
            return True
        raise self._gap(1, later[-1])

    def _gap(self, absent: int, later: str) -> CorruptLog:
        return CorruptLog(f"{self.url}/{segment_key(absent)} is missing, but {later} is there; the log has a gap")
