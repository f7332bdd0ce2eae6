"""A study that was run already as the model of one that is not yet: its times, its curves, its failures.

A configuration behaves like the nearest one on record. This module must not write to the study that it learns from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tune_tasks.errors import ConfigError
from tune_tasks.execution import TrialTask
from tune_tasks.simulate.landscape import at, position
from tune_tasks.simulate.model import Course
from tune_tasks.space import Constant, Float, Int, Space, config
from tune_tasks.study import StudyState


@dataclass(frozen=True, slots=True)
class _Known:
    """A trial on record: its place in the space, seconds a step over all its attempts, curve, and where it failed."""

    place: tuple[Any, ...]
    seconds: float
    curve: tuple[float, ...]
    fails: int | None


class Recorded:
    """Repeats what the trials of a study did."""

    def __init__(self, state: StudyState, space: Space, *, bounded: bool) -> None:
        """`bounded`: a scheduler sets budgets, so that no objective returns on its own."""
        self._space, self._name = space, state.spec.name
        self._parameters = [(n, p) for n, p in space.root.items() if not isinstance(p, Constant)]
        self._known = [self._of(state, number) for number in range(len(state.trials)) if _usable(state, number)]
        if not self._known:
            raise ConfigError(f"--like: study {state.spec.name!r} has no trial that reported and ended; run it further")
        if not any(trial.curve for trial in self._known):
            raise ConfigError(f"--like: study {state.spec.name!r} has no value of its metric {state.spec.metric!r}")
        self._bounded = bounded
        self._near = lru_cache(maxsize=4096)(self._nearest)

    def course(self, task: TrialTask) -> Course:
        """The course of the nearest trial; where that one ended earlier, on with the changes of one that went on."""
        place = self._place(task.config)
        known, curve = self._near(place)
        return Course(
            seconds=known.seconds,
            value=lambda step: curve[min(step, len(curve)) - 1],
            length=None if self._bounded else len(known.curve) or 1,
            fails=known.fails,
        )

    def assumptions(self) -> Iterator[str]:
        """See `Model.assumptions`."""
        yield (
            f"each configuration takes the time, shows the values and fails as the nearest of {len(self._known)} "
            f"trials of study {self._name!r}; beyond its last step it changes like the nearest that went on"
        )

    def _of(self, state: StudyState, number: int) -> _Known:
        trial, curve = state.trials[number], tuple(float(value) for value in state.curve(number))
        ran = max(len(curve), 1)
        failed = trial.state == "failed"
        return _Known(
            self._place(config(trial.params)),
            trial.seconds / ran,
            tuple(value for value in curve if not math.isnan(value)),
            len(curve) + 1 if failed else None,
        )

    def _place(self, values: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(
            position(parameter, found)
            if (found := at(values, name)) is not None and isinstance(parameter, Float | Int)
            else found
            for name, parameter in self._parameters
        )

    def _nearest(self, place: tuple[Any, ...]) -> tuple[_Known, tuple[float, ...]]:
        """The nearest trial, and its curve, prolonged by the changes of the nearest that is longer, and so on."""
        ordered = sorted(self._known, key=lambda known: _distance(known.place, place))
        joined: list[float] = []
        for curve in (trial.curve for trial in ordered):
            if len(curve) > len(joined):
                shift = joined[-1] - curve[len(joined) - 1] if joined else 0.0
                joined += [value + shift for value in curve[len(joined) :]]
        return ordered[0], tuple(joined)


def _usable(state: StudyState, number: int) -> bool:
    trial = state.trials[number]
    return trial.seconds > 0 and trial.state not in {"queued", "running"}


def _distance(one: tuple[Any, ...], other: tuple[Any, ...]) -> float:
    """Gower's distance: differences of numbers on their scale, and 1 for each choice that differs."""
    return sum(
        abs(a - b) if isinstance(a, float) and isinstance(b, float) else float(a != b)
        for a, b in zip(one, other, strict=True)
    )
