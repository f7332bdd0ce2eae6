"""The reports of all trials in columns, so that a million of them cost memory and time like arrays, not like objects.

Row k of a trial is its report of step k + 1: steps are whole, start at 1, and have no gaps. Pure values; this module
must not know where the bytes of a frozen block come from or go to.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import cast

NAN = math.nan


@dataclass(frozen=True, slots=True)
class Report:
    """What a trial reported at one step; `time` is in seconds since the epoch."""

    step: int
    time: float
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Block:
    """Finished columns of trials 0, 1, ...: `lengths` reports each, in a row; NaN where a metric is absent."""

    lengths: Sequence[int]
    time: memoryview
    metrics: Mapping[str, memoryview]


@dataclass(slots=True)
class _Curve:
    time: array[float] = field(default_factory=lambda: array("d"))
    metrics: dict[str, array[float]] = field(default_factory=dict)
    shared: bool = False

    def own(self) -> _Curve:
        """A curve with the same reports that no copy has."""
        return _Curve(self.time[:], {name: column[:] for name, column in self.metrics.items()})


class Curves:
    """The reports by trial. Grows by `append`; a block read from a snapshot is cut into trials only when looked at."""

    def __init__(self, block: Block | None = None) -> None:
        self._block = block
        self._offsets = [0, *accumulate(block.lengths)] if block else [0]
        self._live: dict[int, _Curve] = {}

    def length(self, trial: int) -> int:
        """The number of steps that the trial has reported."""
        live = self._live.get(trial)
        if live is not None:
            return len(live.time)
        return self._block.lengths[trial] if self._block and trial < len(self._block.lengths) else 0

    def append(self, trial: int, step: int, time: float, metrics: Iterable[tuple[str, float | None]]) -> bool:
        """Adds a report; one of an earlier step replaces it and drops what came after.

        Returns whether something was dropped. Raises `ValueError` where the step leaves a gap.
        """
        curve = self._writable(trial)
        known = len(curve.time)
        if not 1 <= step <= known + 1:
            raise ValueError(f"trial {trial} reports step {step} after step {known}")
        if step <= known:
            _truncate(curve, step - 1)
        curve.time.append(time)
        for name, value in metrics:
            if value is not None:
                column = curve.metrics.get(name)
                if column is None or len(column) < step - 1:
                    column = _padded(curve, name, step - 1)
                column.append(value)
        return step <= known

    def extend(
        self, trial: int, steps: list[int], times: list[float], metrics: Iterable[tuple[str, list[float | None]]]
    ) -> bool:
        """Adds several reports, as `append` does one after the other; the next steps without a hole go in at once."""
        known, columns = self.length(trial), list(metrics)
        if steps != list(range(known + 1, known + 1 + len(steps))) or any(None in values for _, values in columns):
            dropped = False
            for row, (step, time) in enumerate(zip(steps, times, strict=True)):
                dropped |= self.append(trial, step, time, ((name, values[row]) for name, values in columns))
            return dropped
        curve = self._writable(trial)
        curve.time.extend(times)
        for name, values in columns:
            column = curve.metrics.get(name)
            if column is None or len(column) < known:
                column = _padded(curve, name, known)
            column.extend(cast("list[float]", values))
        return False

    def column(self, trial: int, metric: str) -> Sequence[float]:
        """The values of one metric, step by step; NaN, or nothing at the end, where it was not reported."""
        if trial not in self._live and self._block is not None and trial < len(self._block.lengths):
            values = self._block.metrics.get(metric)
            return () if values is None else values[self._offsets[trial] : self._offsets[trial + 1]]
        live = self._live.get(trial)
        return () if live is None else live.metrics.get(metric, ())

    def time(self, trial: int, step: int) -> float:
        """When the trial reported a step, in seconds since the epoch."""
        return self._times(trial)[step - 1]

    def reports(self, trial: int, after: int = 0) -> list[Report]:
        """The reports of a trial as objects, in the order of their steps; those `after` a step."""
        curve = self._curve(trial)
        return [
            Report(
                index + 1,
                curve.time[index],
                {n: c[index] for n, c in curve.metrics.items() if index < len(c) and not math.isnan(c[index])},
            )
            for index in range(after, len(curve.time))
        ]

    def copy(self) -> Curves:
        """A copy that no later report reaches, to be read on another thread; no column is copied before it grows."""
        for curve in self._live.values():
            curve.shared = True
        copied = Curves()
        copied._block, copied._offsets, copied._live = self._block, self._offsets, dict(self._live)
        return copied

    def cells(self, trials: int) -> int:
        """How many cells the block of trials 0 to `trials` - 1 would have."""
        return len(self._names()) * sum(self.length(trial) for trial in range(trials))

    def freeze(self, trials: int) -> Block:
        """Copies the columns of trials 0 to `trials` - 1 into one block."""
        lengths = [self.length(trial) for trial in range(trials)]
        time = array("d")
        for trial in range(trials):
            _join(time, self._times(trial))
        columns = {name: memoryview(self._joined(name, lengths)) for name in sorted(self._names())}
        return Block(lengths, memoryview(time), columns)

    def _names(self) -> set[str]:
        return {*(self._block.metrics if self._block else ()), *(n for c in self._live.values() for n in c.metrics)}

    def _joined(self, name: str, lengths: Sequence[int]) -> array[float]:
        joined = array("d")
        for trial, length in enumerate(lengths):
            column = self.column(trial, name)
            _join(joined, column)
            joined.extend([NAN] * (length - len(column)))
        return joined

    def _times(self, trial: int) -> Sequence[float]:
        if trial not in self._live and self._block is not None and trial < len(self._block.lengths):
            return self._block.time[self._offsets[trial] : self._offsets[trial + 1]]
        return self._curve(trial).time

    def _writable(self, trial: int) -> _Curve:
        curve = self._curve(trial)
        if curve.shared:
            curve = self._live[trial] = curve.own()
        return curve

    def _curve(self, trial: int) -> _Curve:
        curve = self._live.get(trial)
        if curve is None:
            curve = _Curve()
            if self._block is not None and trial < len(self._block.lengths):
                start, end = self._offsets[trial], self._offsets[trial + 1]
                curve.time = array("d", self._block.time[start:end])
                curve.metrics = {name: array("d", values[start:end]) for name, values in self._block.metrics.items()}
            self._live[trial] = curve
        return curve


def _join(joined: array[float], column: Sequence[float]) -> None:
    """Appends a column as bytes: an array takes a view item by item, in three times the time."""
    if len(column):
        joined.frombytes(memoryview(cast("array[float]", column)).cast("B"))


def _truncate(curve: _Curve, length: int) -> None:
    del curve.time[length:]
    for column in curve.metrics.values():
        del column[length:]


def _padded(curve: _Curve, name: str, length: int) -> array[float]:
    column = curve.metrics.setdefault(name, array("d"))
    column.extend([NAN] * (length - len(column)))
    return column
