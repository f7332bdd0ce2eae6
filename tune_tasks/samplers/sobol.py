"""Sobol search: a scrambled low-discrepancy sequence, which covers the space more evenly than random draws.

Sobol (1967); scrambling by Owen as in SciPy's `qmc.Sobol`. This module must not keep a sequence between calls: point n
belongs to trial n, counted from the first that this sampler may propose.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tune_tasks.events import Proposal
from tune_tasks.samplers import generator
from tune_tasks.samplers.untried import Candidates, draws, propose_untried
from tune_tasks.space import Constant, Space
from tune_tasks.study import StudyState


class SobolSampler(BaseModel):
    """Gives every parameter a dimension of its own, also one that exists only under a condition."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="another seed scrambles the sequence in another way")

    @model_validator(mode="after")
    def _has_scipy(self) -> SobolSampler:
        if find_spec("scipy") is None:
            raise ValueError("the sampler 'sobol' needs the package scipy: pip install 'tune-tasks[sobol]'")
        return self

    def propose(self, history: StudyState, count: int) -> list[Proposal]:
        """Returns the next `count` points of the sequence; random ones where a point repeats what was tried."""
        space, first = history.spec.space, len(history.trials)
        given = min(len(history.spec.start), first)  # configurations that were tried first took no point
        names = [name for name in space if not isinstance(space[name], Constant)]
        points = _points(len(names), first - given, count, self.seed)

        def candidates(number: int) -> Candidates:
            point = dict(zip(names, points[number - first], strict=True))
            yield _configuration(space, point), f"Sobol point {number - given}"
            rng = generator(self.seed, number)
            yield from draws(space, rng, f"random, as Sobol point {number - given} was tried before")

        return propose_untried(history, count, self.seed, candidates)


def _configuration(space: Space, point: dict[str, float]) -> dict[str, Any]:
    return space.choose(lambda name, parameter: parameter.from_unit(point[name]))


def _points(dimensions: int, start: int, count: int, seed: int) -> Sequence[Sequence[float]]:
    """Points `start` to `start` + `count` of the scrambled sequence, in the half-open unit cube."""
    import numpy as np
    from scipy.stats import qmc

    sequence = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed))
    if start == 0:
        # SciPy warns where the first draw is no power of two; points that come one by one are in order all the same.
        first = sequence.random(1)
        return [*first.tolist(), *(sequence.random(count - 1).tolist() if count > 1 else [])]
    sequence.fast_forward(start)
    points: list[list[float]] = sequence.random(count).tolist()
    return points
