"""Configurations that are handed in take the form of the space, and each mistake in them gets its line."""

from __future__ import annotations

from typing import Any

import pytest

from tune_tasks.errors import ConfigError
from tune_tasks.points import point, same
from tune_tasks.space import Space
from tune_tasks.spec import StudySpec

SPACE: dict[str, Any] = {
    "optimizer": {"rate": {"type": "float", "low": 0.001, "high": 1}},
    "layers": {"type": "int", "low": 1, "high": 9, "step": 2},
    "model": {"type": "categorical", "choices": ["small", "large", 1]},
    "depth": {"type": "int", "low": 1, "high": 3, "when": {"model": "large"}},
    "epochs": 27,
}
THERE = "there is no such parameter; there are optimizer.rate, layers, model, epochs, depth"
GOOD = {"optimizer.rate": 0.5, "layers": 3, "model": "small"}


def refused(*start: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        StudySpec(name="s", objective="m:f", metric="loss", mode="min", space=SPACE, start=start)
    return str(caught.value).splitlines()


def test_a_point_has_dotted_names_in_order_its_constants_and_floats() -> None:
    made = point(Space(SPACE), {"model": "large", "depth": 2, "layers": 3, "optimizer": {"rate": 1}})
    assert made == {"optimizer.rate": 1.0, "layers": 3, "model": "large", "epochs": 27, "depth": 2}
    assert list(made) == list(Space(SPACE))
    assert type(made["optimizer.rate"]) is float


def test_configurations_are_the_same_however_they_are_written() -> None:
    space = Space(SPACE)
    assert same(space, {"optimizer": {"rate": 1}, "layers": 3}, {"layers": 3, "optimizer.rate": 1.0})
    assert not same(space, {**GOOD, "model": 1}, {**GOOD, "model": True})


def test_each_mistake_has_its_path_its_value_and_what_is_allowed() -> None:
    assert refused(
        GOOD,
        {"params": {"optimizer.rte": 0.5, "layers": 2, "model": "medium"}, "origin": "a guess"},
        {**GOOD, "optimizer.rate": 5, "depth": 1, "epochs": 3},
    ) == [
        "start.1.params.layers: 2 is not allowed; it must be a whole number from 1 to 9, in steps of 2",
        "start.1.params.model: 'medium' is not allowed; allowed are 'small', 'large', 1",
        f"start.1.params.optimizer.rte: 'optimizer.rte' is not allowed; {THERE}. Did you mean 'optimizer.rate'?",
        "start.1.params.optimizer.rate: missing; it must be a number from 0.001 to 1",
        "start.2.params.optimizer.rate: 5.0 is not allowed; it must be a number from 0.001 to 1",
        "start.2.params.epochs: 3 is not allowed; the space has the constant 27",
        "start.2.params.depth: 1 is not allowed; the parameter exists only where model is 'large'",
    ]


def test_a_configuration_that_is_there_twice_is_refused() -> None:
    assert refused(GOOD, {**GOOD, "layers": 5}, {**GOOD, "epochs": 27}) == [
        "start.2: is the same configuration as start.0; each must be different"
    ]


def test_a_key_that_a_start_does_not_have_is_refused() -> None:
    assert refused({"params": GOOD, "orign": "a guess"}) == [
        "start.0.orign: 'orign' is not allowed; unknown key; allowed are params, origin. Did you mean 'origin'?"
    ]
