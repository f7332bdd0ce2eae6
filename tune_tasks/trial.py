"""One trial of a study as its log tells it, and the other values that are read off a study. Frozen.

This module must not know how an event changes a trial: that is `study.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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

    @property
    def reports(self) -> list[Report]:
        """Everything that the trial reported, step by step."""
        return self.curves.reports(self.number)

    @property
    def checkpoint(self) -> tuple[int, CheckpointRef] | None:
        """The newest recorded checkpoint, with its step."""
        return max(self.checkpoints, key=lambda item: item[0]) if self.checkpoints else None


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
