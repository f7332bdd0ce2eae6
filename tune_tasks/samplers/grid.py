"""Grid search: every combination of the discrete parameters, in order.

This module must not list the grid: a cell is computed from its number, so that a huge grid costs nothing.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from tune_tasks.events import Proposal
from tune_tasks.samplers import generator
from tune_tasks.samplers.cells import cells
from tune_tasks.study import StudyState


class GridSampler(BaseModel):
    """Tries cell n with trial n, the last parameter changing fastest, and has nothing more to propose after the last.

    Grid, categorical and int parameters and floats with a step make the cells; a parameter that does not exist for a
    cell does not multiply it. A continuous float is drawn at random for each trial.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="for the floats without a step, which are drawn at random")
    repeats: int = Field(default=1, ge=1, description="how often the whole grid is gone through")

    def propose(self, history: StudyState, count: int) -> list[Proposal]:
        """Returns the next `count` cells; fewer at the end of the last pass."""
        grid = cells(history.spec.space)
        start = len(history.trials)
        end = min(start + count, grid.total * self.repeats)
        return [
            self._proposal(history, number, grid.at(number % grid.total), grid.total) for number in range(start, end)
        ]

    def _proposal(self, history: StudyState, number: int, cell: dict[str, object], total: int) -> Proposal:
        rng = generator(self.seed, number)
        params = history.spec.space.choose(
            lambda name, parameter: cell[name] if name in cell else parameter.from_unit(rng.random())
        )
        repeat = f", pass {number // total + 1} of {self.repeats}" if self.repeats > 1 else ""
        return Proposal(number=number, params=params, reason=f"cell {number % total + 1} of {total}{repeat}")
