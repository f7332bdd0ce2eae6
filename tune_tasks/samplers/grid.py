"""Grid search: every combination of the discrete parameters, in order.

This module must not list the grid: a cell is computed from its number, so that a huge grid costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from tune_tasks.events import Proposal
from tune_tasks.samplers import generator
from tune_tasks.samplers.cells import Cells, cells, position
from tune_tasks.space import Constant, Space
from tune_tasks.study import StudyState, Trial

_Key: TypeAlias = tuple[tuple[str, int], ...]


class GridSampler(BaseModel):
    """Tries one cell after another, the last parameter changing fastest, and proposes nothing after the last one.

    Grid, categorical and int parameters and floats with a step make the cells; a parameter that does not exist for a
    cell does not multiply it. A continuous float is drawn at random for each trial. A cell that was tried already,
    because it was given to be tried first or before the study was extended, is passed over.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="for the floats without a step, which are drawn at random")
    repeats: int = Field(default=1, ge=1, description="how often the whole grid is gone through")

    def propose(self, history: StudyState, count: int) -> list[Proposal]:
        """Returns the next `count` cells; fewer at the end of the last pass."""
        tried = history.changes.index(history, _Tried, _Tried)
        left = tried.left(history, self.repeats)
        first = len(history.trials)
        return [
            self._proposal(history, number, turn, tried.grid)
            for number, turn in zip(range(first, first + count), left, strict=False)
        ]

    def _proposal(self, history: StudyState, number: int, turn: int, grid: Cells) -> Proposal:
        rng, total = generator(self.seed, number), grid.total
        cell = grid.at(turn % total)
        params = history.spec.space.choose(
            lambda name, parameter: cell[name] if name in cell else parameter.from_unit(rng.random())
        )
        repeat = f", pass {turn // total + 1} of {self.repeats}" if self.repeats > 1 else ""
        return Proposal(number=number, params=params, reason=f"cell {turn % total + 1} of {total}{repeat}")


class _Tried:
    """How many trials each cell has, and up to where every cell has had its turn.

    Turn t is cell t modulo the size of the grid, which wants as many trials as the grid was begun by then.
    """

    def __init__(self) -> None:
        self.grid: Cells = None  # type: ignore[assignment]  # there is a space before anything is asked
        self._space: Space | None = None
        self._names: list[str] = []
        self._counts: Counter[_Key] = Counter()
        self._of: dict[int, _Key] = {}
        self._turn = 0

    def take(self, state: StudyState, trial: Trial) -> None:
        """See `Index.take`."""
        self._look_at(state)
        key, known = self._key(trial.params), self._of.get(trial.number)
        if key == known:
            return
        self._of[trial.number] = key
        self._counts[key] += 1
        if known is not None:
            self._counts[known] -= 1
            self._turn = 0  # a trial that took over another's configuration may have left a cell untried

    def left(self, state: StudyState, repeats: int) -> Iterator[int]:
        """The turns that are still due, in order."""
        self._look_at(state)
        total = self.grid.total
        for turn in range(self._turn, total * repeats):
            if self._counts[self._key(self.grid.at(turn % total))] <= turn // total:
                yield turn
            elif turn == self._turn:
                self._turn += 1

    def _look_at(self, state: StudyState) -> None:
        """Begins anew where the space is another one: the study was extended."""
        space = state.spec.space
        if space is self._space:
            return
        self._space, self.grid, self._turn = space, cells(space), 0
        self._names = _discrete(space)
        self._of = {number: self._key(state.trials[number].params) for number in self._of}
        self._counts = Counter(self._of.values())

    def _key(self, params: dict[str, Any]) -> _Key:
        """The cell of a configuration, by the places of its values: 1 and 1.0 are one step of a float."""
        assert self._space is not None  # noqa: S101  # for the type checker
        return tuple((name, position(self._space[name], params[name])) for name in self._names if name in params)


def _discrete(space: Space) -> list[str]:
    """The parameters that make the cells: what depends on a continuous one belongs to none."""
    found: dict[str, bool] = {}
    for name in space:
        found[name] = space[name].size() > 0 and all(found[parent] for parent in space[name].when)
    return [name for name in found if found[name] and not isinstance(space[name], Constant)]
