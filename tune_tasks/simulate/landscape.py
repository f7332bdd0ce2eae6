"""An invented objective: a smooth function of the configuration, and curves that approach it.

It is there so that schedulers have something to prune and samplers something to learn; it says nothing about the
training that it stands for. Pure arithmetic from a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

from tune_tasks.space import Categorical, Constant, Float, Int, Space

START = 1.0
"""What a curve shows before its first step; asymptotes lie between 0 and 1."""


class Landscape:
    """Curves over one search space: the asymptote and the rate of each are random quadratics of the configuration."""

    def __init__(self, space: Space, mode: str, seed: int) -> None:
        self._mode, self._seed = mode, seed
        self._parameters = {n: p for n, p in space.root.items() if not isinstance(p, Constant)}
        random = Random(f"{seed}/landscape")  # noqa: S311  # a simulation
        self._shape = {
            name: (random.random(), random.uniform(0.2, 1.0), random.random(), random.random())
            for name in self._parameters
        }

    def curve(self, config: dict[str, Any]) -> Callable[[int], float]:
        """The metric by step: START falls towards the asymptote as step^-rate; mirrored where larger is better."""
        height = weight = rate = 0.0
        for name, parameter in self._parameters.items():
            unit = self.unit(name, parameter, at(config, name))
            if unit is not None:
                centre, steep, other, mean = self._shape[name]
                height += steep * (unit - centre) ** 2
                weight += steep
                rate += mean * (unit - other) ** 2
        asymptote = 0.02 + 0.9 * math.sqrt(height / weight) if weight else 0.5
        power, sign, base = 0.3 + min(rate, 1.0), *((1.0, 0.0) if self._mode == "min" else (-1.0, 1.0))
        return lambda step: base + sign * (asymptote + (START - asymptote) * (step + 1) ** -power)

    def unit(self, name: str, parameter: Any, value: Any) -> float | None:
        """Where a value lies between 0 and 1 on its parameter's scale; None where the parameter does not exist."""
        if value is None and not isinstance(parameter, Categorical):
            return None
        match parameter:
            case Float() | Int():
                return position(parameter, value)
            case _:
                return Random(f"{self._seed}/{name}/{value!r}").random()  # noqa: S311  # a place for each choice


def position(parameter: Float | Int, value: float) -> float:
    """The inverse of `from_unit`, to within a bin."""
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def at(config: dict[str, Any], name: str) -> Any:
    """The value of a dotted name in a nested configuration; None where there is none."""
    found: Any = config
    for part in name.split("."):
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    return found
