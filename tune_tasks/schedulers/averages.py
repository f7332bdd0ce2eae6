"""The running averages of all trials by step, kept sorted, so that a median costs a search and not a pass over trials.

A memo and nothing else: it is brought up to date from the state before each look, and holds for any state exactly what
a fresh one would. This module must not decide anything.
"""

from __future__ import annotations

import math
import operator
from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from functools import lru_cache, reduce
from itertools import accumulate
from typing import TypeAlias

from tune_tasks.curves import Curves
from tune_tasks.study import OVER, StudyState, Trial

_Place: TypeAlias = "Callable[[array[float], float], None]"


def median_of_others(history: StudyState, trial: Trial, step: int) -> tuple[float, int]:
    """The median of the other trials' average value over steps 1 to `step`, and how many reported that step.

    Failed trials do not count. The median of none is NaN.
    """
    averages = _averages(history.curves, history.spec.metric)
    averages.refresh(history)
    return averages.median(trial.number, step)


@lru_cache(maxsize=2)
def _averages(curves: Curves, metric: str) -> _Averages:  # noqa: ARG001  # they are the key: one memo for each history
    return _Averages()


class _Averages:
    def __init__(self) -> None:
        self._trials: list[Trial | None] = []
        self._open: set[int] = set()
        self._values: list[array[float]] = []
        self._totals: list[float] = []
        self._columns: list[array[float]] = []

    def refresh(self, history: StudyState) -> None:
        """Takes in every trial that changed.

        A trial is a frozen value, so one that is the same object did not change, and one that is over never will.
        """
        trials, known = history.trials, len(self._trials)
        place = insort if known else array.append
        for number in range(known, len(trials)):
            self._trials.append(None)
            self._values.append(array("d"))
            self._totals.append(0.0)
            self._open.add(number)
        for number in [number for number in self._open if trials[number] is not self._trials[number]]:
            self._take(history, trials[number], place)
        if not known:
            self._columns = [array("d", sorted(column)) for column in self._columns]

    def median(self, number: int, step: int) -> tuple[float, int]:
        """The median at `step` without trial `number`, and over how many trials."""
        column = self._columns[step - 1] if step <= len(self._columns) else array("d")
        values = self._values[number]
        # sum() adds in another way than one by one from Python 3.12 on, and would miss the trial's own average.
        own = bisect_left(column, reduce(operator.add, values[:step]) / step) if len(values) >= step else len(column)
        others = len(column) - (own < len(column))
        if not others:
            return float("nan"), 0
        low, high = (others - 1) // 2, others // 2
        return (column[low + (low >= own)] + column[high + (high >= own)]) / 2, others

    def _take(self, history: StudyState, trial: Trial, place: _Place) -> None:
        number, values = trial.number, self._values[trial.number]
        curve = () if trial.state == "failed" else history.curve(number)
        known = len(values)
        if array("d", curve[:known]) != values:
            self._drop(values)
            del values[:]
            self._totals[number], known = 0.0, 0
        self._add(number, array("d", curve[known:]), place)
        self._trials[number] = trial
        if trial.state in OVER:
            self._open.discard(number)

    def _add(self, number: int, new: Iterable[float], place: _Place) -> None:
        values, total = self._values[number], self._totals[number]
        for value in new:
            if math.isnan(value):  # a step without the metric; what comes after it has no average
                return
            values.append(value)
            total += value
            while len(self._columns) < len(values):
                self._columns.append(array("d"))
            place(self._columns[len(values) - 1], total / len(values))
            self._totals[number] = total

    def _drop(self, values: array[float]) -> None:
        for index, total in enumerate(accumulate(values)):
            column = self._columns[index]
            del column[bisect_left(column, total / (index + 1))]
