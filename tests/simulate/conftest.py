"""Small studies, and models of which everything is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tune_tasks.execution import TrialTask
from tune_tasks.simulate.model import Course
from tune_tasks.spec import StudySpec


@dataclass(frozen=True)
class Steady:
    """Every step takes as long, of trial `slow` 100 times as long; the metric falls from trial number + 1 towards 0."""

    seconds: float = 10.0
    fails: int | None = None
    slow: int | None = None

    def course(self, task: TrialTask) -> Course:
        seconds = self.seconds * (100 if task.trial == self.slow else 1)
        return Course(seconds, lambda step: (task.trial + 1) / step, fails=self.fails)

    def assumptions(self) -> Iterator[str]:
        yield "steady"


@pytest.fixture
def steady() -> type[Steady]:
    return Steady


@pytest.fixture
def spec() -> Callable[..., StudySpec]:
    def make(trials: int = 2, workers: int = 1, **changes: Any) -> StudySpec:
        given: dict[str, Any] = {
            "name": "imagined",
            "objective": "no_such_module:train",
            "metric": "loss",
            "mode": "min",
            "space": {
                "x": {"type": "float", "low": 0.0, "high": 1.0},
                "kind": {"type": "categorical", "choices": ["a", "b"]},
            },
            "sampler": "random",
            "scheduler": {"name": "none", "max_budget": 2},
            "budget": {"trials": trials, "concurrency": workers},
            "execution": {"flow": "streaming"},
        }
        return StudySpec(**{**given, **changes})

    return make
