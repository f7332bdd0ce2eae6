"""One trial of a study as its log tells it, and the other values that are read off a study. Frozen.

This module must not know how an event changes a trial: that is `study.py`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, fields
from itertools import repeat
from operator import attrgetter, call
from typing import Any, Literal, NamedTuple, TypeAlias

from tune_tasks.curves import Curves, Report
from tune_tasks.events import Advance, CheckpointRef

TrialStatus: TypeAlias = Literal["queued", "running", "paused", "completed", "pruned", "failed"]
OVER: frozenset[str] = frozenset({"completed", "pruned", "failed"})


@dataclass(frozen=True, slots=True)
class Trial:
    """One configuration and what came of it.

    `value` is the best that it reported, `budget` its steps so far, `seconds` how long its attempts ran that are over.
    """

    number: int
    params: dict[str, Any]
    reason: str
    state: TrialStatus = "queued"
    value: float | None = None
    best_step: int | None = None
    budget: int = 0
    target: int | None = None
    last: bool = False
    batch: str = ""
    advance: Advance | None = None
    attempts: int = 0
    failures: int = 0
    losses: int = 0
    seconds: float = 0.0
    began: float | None = None
    node: str = ""
    why: str = ""
    error: str | None = None
    checkpoints: tuple[tuple[int, CheckpointRef], ...] = ()
    curves: Curves = field(default_factory=Curves, repr=False, compare=False)

    def changed(self, **values: Any) -> Trial:
        """A copy in which these values differ. It is made for each report, so it must take less than `replace` does."""
        copy = object.__new__(Trial)
        deque(map(call, _SETTERS, repeat(copy), _VALUES(self)), maxlen=0)
        for name, value in values.items():
            _SETTERS[_PLACES[name]](copy, value)
        return copy

    @property
    def reports(self) -> list[Report]:
        """Everything that the trial reported, step by step."""
        return self.curves.reports(self.number)

    @property
    def checkpoint(self) -> tuple[int, CheckpointRef] | None:
        """The newest recorded checkpoint, with its step."""
        return max(self.checkpoints, key=lambda item: item[0]) if self.checkpoints else None


_NAMES = [field.name for field in fields(Trial)]
_PLACES = {name: place for place, name in enumerate(_NAMES)}
_SETTERS: list[Any] = [vars(Trial)[name].__set__ for name in _NAMES]
_VALUES = attrgetter(*_NAMES)


class Saved(NamedTuple):
    """A checkpoint that the log names: whose it is, of which step, and where it lies."""

    trial: int
    step: int
    reference: CheckpointRef


@dataclass(frozen=True, slots=True)
class Batch:
    """What a sample step gave: trials to run, each up to a budget in steps (None: until its objective returns)."""

    id: str
    run: str
    round: int
    trials: tuple[tuple[int, int | None], ...]
    exhausted: bool = False
