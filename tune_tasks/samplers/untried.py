"""Keeps a sampler from proposing what was tried, and finds out when nothing is left to try.

It matters only where values can meet again: a configuration with a continuous parameter never does. This module must
not prefer one configuration to another; the sampler offers its candidates, best first, and takes the first new one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice

from tune_tasks.events import Proposal
from tune_tasks.samplers import generator
from tune_tasks.samplers.cells import cells
from tune_tasks.space import Constant, Params, Space
from tune_tasks.study import StudyState, Trial

REDRAWS = 100
"""Candidates that are looked at before the cells of a finite space are walked through one by one."""

Candidates = Iterator[tuple[Params, str]]


def draw(space: Space, rng: random.Random) -> Params:
    """One random configuration: uniform on the declared scale of each parameter."""
    return space.choose(lambda _, parameter: parameter.from_unit(rng.random()))


def draws(space: Space, rng: random.Random, reason: str) -> Candidates:
    """Random configurations without end."""
    while True:
        yield draw(space, rng), reason


def propose_untried(
    history: StudyState,
    count: int,
    seed: int,
    candidates: Callable[[int], Candidates],
    take: Callable[[Params], None] = lambda _: None,
) -> list[Proposal]:
    """Proposes, for each new trial number, the first of `candidates(number)` that was not tried before.

    Fewer than `count` come back where the space is finite and used up. `take` hears of every one that is proposed.
    """
    seen = _Seen(history)
    proposals: list[Proposal] = []
    for number in range(len(history.trials), len(history.trials) + count):
        found = seen.first(candidates(number), generator(seed, number))
        if found is None:
            break
        params, reason = found
        take(params)
        proposals.append(Proposal(number=number, params=params, reason=reason))
    return proposals


class _Seen:
    """The configurations so far, as text, which tells True from 1 and 1 from 1.0 where equality does not."""

    def __init__(self, history: StudyState) -> None:
        space = history.spec.space
        parameters = [space[name] for name in space]
        self._space = space
        self._finite = all(parameter.size() for parameter in parameters)
        self._repeats = all(parameter.size() or parameter.when for parameter in parameters)
        self._names = tuple(name for name in space if not isinstance(space[name], Constant))
        names = self._names
        tried = history.changes.index(history, (_Tried, names), lambda: _Tried(names)) if self._repeats else None
        self._before = tried.counts if tried else Counter[str]()
        self._keys: set[str] = set()

    def first(self, candidates: Candidates, rng: random.Random) -> tuple[Params, str] | None:
        for params, reason in islice(candidates, REDRAWS):
            if not self._repeats or self._add(params):
                return params, reason
        return self._any_left(rng) if self._finite else (params, reason)

    def _any_left(self, rng: random.Random) -> tuple[Params, str] | None:
        grid = cells(self._space)
        start = rng.randrange(grid.total)
        for offset in range(min(grid.total, len(self._before) + len(self._keys) + 1)):
            cell = grid.at((start + offset) % grid.total)
            params = self._space.choose(lambda name, _, cell=cell: cell[name])  # type: ignore[misc]
            if self._add(params):
                return params, "random among the few that are left"
        return None

    def _add(self, params: Params) -> bool:
        """Notes a configuration; says whether it is new."""
        key = _key(params, self._names)
        if key in self._before or key in self._keys:
            return False
        self._keys.add(key)
        return True


class _Tried:
    """The configurations of all trials, each with how many have it, by the parameters of these names.

    Constants do not count: a study that is extended may get one that its first trials do not have.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self.counts: Counter[str] = Counter()
        self._of: dict[int, str] = {}

    def take(self, _: StudyState, trial: Trial) -> None:
        """See `Index.take`."""
        key, known = _key(trial.params, self._names), self._of.get(trial.number)
        if key == known:
            return
        self._of[trial.number] = key
        self.counts[key] += 1
        if known is not None:
            self.counts[known] -= 1
            if not self.counts[known]:
                del self.counts[known]


def _key(params: Params, names: tuple[str, ...]) -> str:
    return repr([(name, params[name]) for name in names if name in params])
