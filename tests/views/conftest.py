"""A study with a trial in every state."""

from __future__ import annotations

from typing import Any

import pytest

from tests.histories import Story
from tune_tasks.spec import StudySpec
from tune_tasks.study import StudyState


def spec(**changes: Any) -> StudySpec:
    given = {
        "name": "shown",
        "objective": "objective:train",
        "metric": "loss",
        "mode": "min",
        "space": {
            "x": {"type": "float", "low": 0.0, "high": 1.0},
            "kind": {"type": "categorical", "choices": ["a", "b"]},
        },
        "budget": {"trials": 12, "wall_time": "10m"},
    }
    return StudySpec(**{**given, **changes})


@pytest.fixture
def state() -> StudyState:
    story = Story(spec())
    story.open()
    for x in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        story.propose({"x": x, "kind": "a"}, budget=2, last=x == 0.1)
    story.train(0, [{"loss": 0.5}, {"loss": 0.25}])
    story.train(1, [{"loss": 0.9}, {"loss": 0.8}])
    story.give_up(1, "0.8 is not among the best")
    story.train(2, [{"loss": 3.0}], "failed", error="Traceback\n  File 'objective.py'\nValueError: no")
    story.train(3, [{"loss": 0.6}, {"loss": 0.7}])
    story.train(4, [{"loss": 0.4}], None)
    return story.state
