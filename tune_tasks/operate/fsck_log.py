"""Verifies a log segment by segment and goes on behind what is broken, and folds it as far as that can be done.

Pure: bytes come in, findings come out. This module must not stop at the first mistake, and must not mend one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

import orjson

from tune_tasks.errors import CorruptLog
from tune_tasks.events import FORMAT, Checkpointed, CheckpointRef
from tune_tasks.operate.findings import Finding
from tune_tasks.store import Segment
from tune_tasks.store import segment as codec
from tune_tasks.store.segment import fingerprint, segment_key
from tune_tasks.study import StudyState

_BRING_BACK = "bring the object back from a copy of the study, a backup, or the bucket's older versions"
_NEWER = "use the version of tune_tasks that wrote it, or a newer one"
_MIXED = "two studies were written to one place; move the segments of one of them away and bring the other's back"
_FORKED = (
    "two histories of one study were mixed, for example by a backup that was restored and written on; "
    "take every segment from one of them"
)
_UNFENCED = "a driver that had been replaced wrote on, so this store does not keep its conditions: keep one driver only"
_UNFOLDED = "report this with the segment; a version of tune_tasks that can read it may be newer than this one"


@dataclass(frozen=True, slots=True)
class _Broken:
    """Segments that cannot be read. `remedy` is "" where the objects must be brought back."""

    first: int
    last: int
    problem: str
    remedy: str


@dataclass(slots=True)
class LogCheck:
    """What is known of a log after the segments so far; `take` goes on with the next number, `finish` ends it.

    `state` is None behind what cannot be read, until a snapshot gives a new beginning by `go_on`. `checkpoints` are
    those that the readable segments record, whether they were discarded since or not.
    """

    head: int = 0
    chain: str | None = ""
    state: StudyState | None = field(default_factory=StudyState)
    events: int = 0
    findings: list[Finding] = field(default_factory=list)
    checkpoints: dict[str, CheckpointRef] = field(default_factory=dict)
    _runs: list[tuple[str, int, int]] = field(default_factory=list)
    _broken: list[_Broken] = field(default_factory=list)
    _epoch: int = 0

    @property
    def study(self) -> str:
        """The id that most of the readable segments have; "" where there are none."""
        counts: dict[str, int] = {}
        for study, first, last in self._runs:
            counts[study] = counts.get(study, 0) + last - first + 1
        return max(counts, key=lambda study: counts[study], default="")

    @property
    def unreadable(self) -> bool:
        """Whether the newest segment could not be read."""
        return bool(self._broken)

    def lose(self, first: int, last: int) -> None:
        """These segments are missing, but a later one is there."""
        self._give_up(_Broken(first, last, "is missing, but a later segment is there", ""), None)

    def take(self, number: int, data: bytes) -> None:
        """Verifies the next segment."""
        chain = fingerprint(data)
        try:
            segment = codec.decode(data, number)
        except CorruptLog as error:
            problem = str(error).removeprefix(f"{segment_key(number)}: ")
            self._give_up(_Broken(number, number, problem, _NEWER if _is_newer(data) else ""), chain)
            return
        self.head = number
        followed, self.chain = self._follows(segment), chain
        self._tell_broken(segment.previous)
        self.events += len(segment.events)
        self.checkpoints |= {e.checkpoint.key: e.checkpoint for e in segment.events if isinstance(e, Checkpointed)}
        self._fold(segment, followed=followed)

    def go_on(self, state: StudyState, chain: str) -> None:
        """Folds on from a snapshot of this position, which tells the digest that an unreadable segment had."""
        self._tell_broken(chain)
        self.state, self.chain = state, chain

    def finish(self) -> None:
        """Says what only the end of the log tells."""
        self._tell_broken("")
        for study, first, last in self._runs:
            if study != self.study:
                where = "is" if first == last else f"and the segments up to {last} are"
                self._tell(first, f"{where} of study {study}, but the log is of study {self.study}", _MIXED)

    def _tell(self, number: int, problem: str, remedy: str) -> None:
        self.findings.append(Finding("error", segment_key(number), problem, remedy))

    def _give_up(self, broken: _Broken, chain: str | None) -> None:
        self._broken.append(broken)
        self.head, self.chain, self.state = broken.last, chain, None

    def _tell_broken(self, previous: str) -> None:
        """Reports a row of broken segments; the good one behind it names the digest that the last of them had.

        Neighbours with one and the same problem are one finding.
        """
        for _, group in groupby(self._broken, key=lambda broken: (broken.problem, broken.remedy)):
            first, *rest = group
            last = rest[-1].last if rest else first.last
            more = f" (and so the segments up to {last})" if last > first.first else ""
            had = f"; segment {last} had SHA-256 {previous}" if previous and last == self._broken[-1].last else ""
            self._tell(first.first, f"{first.problem}{more}", first.remedy or f"{_BRING_BACK}{had}")
        self._broken.clear()

    def _follows(self, segment: Segment) -> bool:
        """Whether the segment is one of this log, by its study, chain and epoch."""
        same = not self._runs or self._runs[-1][0] == segment.study
        first = self._runs.pop()[1] if same and self._runs else segment.number
        self._runs.append((segment.study, first, segment.number))
        chained = segment.previous == self.chain
        if same and not chained and self.chain is not None and not self._broken:
            self._tell(
                segment.number,
                f"follows a segment with SHA-256 {segment.previous}, but the one before has {self.chain}",
                _FORKED,
            )
        if segment.role == "driver":
            if segment.epoch < self._epoch:
                told = f"is by a driver of epoch {segment.epoch}, after one of epoch {self._epoch}"
                self._tell(segment.number, told, _UNFENCED)
            self._epoch = max(self._epoch, segment.epoch)
        return same and chained

    def _fold(self, segment: Segment, *, followed: bool) -> None:
        if self.state is None:
            return
        state = self.state if followed else None
        try:
            if state is not None:
                for event in segment.events:
                    state.apply(event)
                if state.study != segment.study:
                    raise ValueError(f"it is of study {segment.study}, but begins study {state.study}")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001  # whatever the fold raises, the log does not fit together
            told = f"does not follow from the segments before: {type(error).__name__}: {error}"
            self._tell(segment.number, told, _UNFOLDED)
            state = None
        self.state = state


def _is_newer(data: bytes) -> bool:
    try:
        header = orjson.loads(data.partition(b"\n")[0])
        return bool(header["format"] > FORMAT)
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return False
