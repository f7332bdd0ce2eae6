"""What a model measured: the values that `evaluate` returns, that the log keeps, and that the gates compare.

Pure values. This module must not run what a user wrote, and must not compare two models: that is `gates`.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from tune_tasks.events import Value


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the spec's `evaluate` may return in place of plain numbers by name.

    `examples` has, by metric, one value for each example of the held-out data, always in one order; the metric is
    their mean, and may then be left out of `metrics`. `slices` names groups of examples: by name, a label for each.
    """

    metrics: Mapping[str, Any] = field(default_factory=dict)
    examples: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    slices: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Repeat:
    """One evaluation with one seed, checked: finite numbers, and as many values and labels as there are examples."""

    metrics: Mapping[str, float]
    examples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    slices: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many examples have a value of their own."""
        return len(next(iter(self.examples.values()), ()))


@dataclass(frozen=True, slots=True)
class Measured:
    """A model and its evaluations, one for each seed; none, and an `error`, where it could not be measured."""

    model: str
    repeats: tuple[Repeat, ...] = ()
    error: str | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """Each metric's mean over the repeats that have it."""
        names = dict.fromkeys(name for repeat in self.repeats for name in repeat.metrics)
        return {
            name: statistics.fmean(repeat.metrics[name] for repeat in self.repeats if name in repeat.metrics)
            for name in names
        }

    def values(self, metric: str) -> list[float]:
        """What is resampled: each example's mean over the repeats; else each repeat's number."""
        rows = [repeat.examples[metric] for repeat in self.repeats if metric in repeat.examples]
        if rows and len(rows) == len(self.repeats):
            return [statistics.fmean(column) for column in zip(*rows, strict=True)]
        return [repeat.metrics[metric] for repeat in self.repeats if metric in repeat.metrics]

    def unit(self, metric: str) -> str:
        """What the values are of, for a message."""
        return "examples" if all(metric in repeat.examples for repeat in self.repeats) else "repeats"


class Summary(Value):
    """A model as the user's own gates get it."""

    model: str = Field(description="trial-<number>-<step>, or version-<number> of the champion")
    metrics: dict[str, float]
    bounds: dict[str, tuple[float, float]] = Field(default_factory=dict)
    params: dict[str, Any] = Field(default_factory=dict)
    size: int | None = Field(default=None, description="bytes of its files")
