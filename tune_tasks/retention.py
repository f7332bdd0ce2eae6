"""Which checkpoints of a study nothing needs any more.

Pure, as `decide` is: the log records what is discarded before a file is deleted. This module must not delete anything.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import islice
from typing import TypeAlias

from tune_tasks.events import Discarded
from tune_tasks.indexes import Lowest
from tune_tasks.study import OVER, StudyState, Trial

_Item: TypeAlias = tuple[int, int]
"""A checkpoint by its trial and step."""


def discard(state: StudyState, *, time: float) -> Discarded | None:
    """Picks the checkpoints to discard; None where there is none.

    Kept are the newest `checkpoints.keep_last` of each trial that may go on, the `checkpoints.keep_best` best of the
    study, and whatever a promotion named. None for one of the two keeps all of those. Where a promotion measures
    several candidates again, the best one of each of as many trials is kept too: else one trial could have them all.
    """
    last, promotion = state.spec.checkpoints.keep_last, state.spec.promotion
    candidates = promotion.candidates if promotion.evaluate else 0
    saved = state.changes.index(state, (_Saved, last), lambda: _Saved(last))
    best, leaders = saved.best.first(state.spec.checkpoints.keep_best), saved.leaders.first(candidates)
    gone = sorted(saved.loose.difference(best, leaders, saved.promoted(state)))
    if not gone:
        return None
    named = Counter(saved.keys[item] for item in gone)
    return Discarded(
        trial=[trial for trial, _ in gone],
        step=[step for _, step in gone],
        keys=tuple(key for key, count in named.items() if count == saved.names[key]),
        time=time,
    )


class _Saved:
    """Every checkpoint that there is. `loose` are those that are not among the newest `last` of a trial that goes on.

    `best` ranks them by the value reported with the checkpoint, as a promotion picks its candidate, and `leaders` the
    best one of each trial; `names` counts how many name the same place.
    """

    def __init__(self, last: int | None) -> None:
        self._last = last
        self._steps: dict[int, list[int]] = {}
        self._known = 0
        self._promoted: list[_Item] = []
        self.keys: dict[_Item, str] = {}
        self.names: Counter[str] = Counter()
        self.loose: set[_Item] = set()
        self.best: Lowest[_Item] = Lowest()
        self.leaders: Lowest[_Item] = Lowest()
        self._leader: dict[int, _Item] = {}

    def take(self, state: StudyState, trial: Trial) -> None:
        """See `Index.take`."""
        number, over = trial.number, trial.state in OVER
        for step in self._steps.pop(number, ()):
            self._forget((number, step))
        steps = [step for step, _ in trial.checkpoints]
        newest = [] if over else steps if self._last is None else sorted(steps)[-self._last :]
        values: list[tuple[float, _Item]] = []
        for step, reference in trial.checkpoints:
            item = (number, step)
            self.keys[item] = reference.key
            self.names[reference.key] += 1
            value = math.nan if trial.state == "failed" else state.sign * state.reported(number, step)
            self.best.put(item, value if math.isfinite(value) else None)
            if math.isfinite(value):
                values.append((value, item))
            if step not in newest:
                self.loose.add(item)
        if steps:
            self._steps[number] = steps
        self._lead(number, values)

    def promoted(self, state: StudyState) -> list[_Item]:
        """What promotions named; results of steps are only ever added."""
        for key in islice(reversed(state.steps), len(state.steps) - self._known):
            if key.endswith("/promote/decision") and state.steps[key]["trial"] is not None:
                self._promoted.append((state.steps[key]["trial"], state.steps[key]["step"]))
        self._known = len(state.steps)
        return self._promoted

    def _lead(self, number: int, values: list[tuple[float, _Item]]) -> None:
        before = self._leader.pop(number, None)
        if before is not None:
            self.leaders.put(before, None)
        if values:
            value, self._leader[number] = min(values)
            self.leaders.put(self._leader[number], value)

    def _forget(self, item: _Item) -> None:
        key = self.keys.pop(item)
        self.names[key] -= 1
        if not self.names[key]:
            del self.names[key]
        self.best.put(item, None)
        self.loose.discard(item)
