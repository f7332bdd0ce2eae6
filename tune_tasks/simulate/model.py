"""What a trial would cost and show if it were run: the time of its steps, its learning curve, whether it fails.

A model is a function of its seed, the trial and the configuration alone, so that a simulation has one outcome. This
module must not know nodes or prices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from tune_tasks.execution import TrialTask
from tune_tasks.simulate.landscape import Landscape


@dataclass(frozen=True, slots=True)
class Course:
    """How an attempt goes: each step takes `seconds` and shows `value(step)`.

    At step `length` its objective returns (None: never before its budget); at step `fails` it raises (None: never).
    """

    seconds: float
    value: Callable[[int], float]
    length: int | None = None
    fails: int | None = None


class Model(Protocol):
    """Says how trials go."""

    def course(self, task: TrialTask) -> Course:
        """The course of one attempt; the same for the same task."""
        ...

    def assumptions(self) -> Iterator[str]:
        """What is assumed here, in words for a person."""
        ...


@dataclass(frozen=True, slots=True)
class Assumed:
    """A model for who knows little: log-normal times, power-law curves over a smooth landscape, failures by chance.

    `seconds` is the mean time of a step, or a function that gives it for a configuration; `spread` is the sigma of
    the log-normal factor by which trials differ. `length` is the steps of an objective to which no scheduler sets a
    budget.
    """

    landscape: Landscape
    seconds: float | Callable[[dict[str, Any]], float]
    spread: float = 0.5
    length: int | None = None
    failures: float = 0.0
    seed: int = 0

    def course(self, task: TrialTask) -> Course:
        """The speed belongs to the trial; whether it fails, and where, is drawn for each attempt."""
        pace = Random(f"{self.seed}/pace/{task.trial}").gauss(0.0, 1.0)  # noqa: S311  # a simulation
        mean = self.seconds(task.config) if callable(self.seconds) else self.seconds
        return Course(
            seconds=mean * factor(pace, self.spread),
            value=self.landscape.curve(task.config),
            length=self.length,
            fails=self._fails(task),
        )

    def assumptions(self) -> Iterator[str]:
        """See `Model.assumptions`."""
        mean = "the time that the given function says" if callable(self.seconds) else f"{self.seconds:g} s on average"
        yield f"a step takes {mean}, and trials differ in speed log-normally with sigma {self.spread:g}"
        yield (
            "learning curves are power laws towards an asymptote that depends smoothly on the configuration, "
            "invented from the seed: who wins means nothing, how much is run and pruned does"
        )
        if self.length is not None:
            yield f"an objective returns after {self.length} steps, as no scheduler sets a budget"
        if self.failures:
            yield f"{self.failures:.1%} of the attempts fail, each at a random step"

    def _fails(self, task: TrialTask) -> int | None:
        random = Random(f"{self.seed}/failure/{task.trial}/{task.attempt}")  # noqa: S311  # a simulation
        if random.random() >= self.failures:
            return None
        first = task.checkpoint[0] + 1 if task.checkpoint else 1
        return random.randint(first, max(first, task.budget or self.length or first))


def factor(normal: float, spread: float) -> float:
    """A log-normal factor with mean 1 from a standard normal number."""
    from math import exp

    return exp(spread * normal - spread * spread / 2)
