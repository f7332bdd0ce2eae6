"""Trials that wait although their scheduler pauses none: the study was extended to a larger budget, and they go on.

This module must not choose among trials: that is for the schedulers that have rungs.
"""

from __future__ import annotations

from tune_tasks.events import Advance
from tune_tasks.study import StudyState, Trial


def onward(history: StudyState, max_budget: int | None) -> list[Advance]:
    """Sends every paused trial on to the largest budget; nothing where there is none."""
    if max_budget is None:
        return []
    waiting = history.changes.index(history, _Waiting, _Waiting).numbers
    reason = f"goes on to {max_budget} steps: the study was extended"
    return [Advance(trial=number, budget=max_budget, last=True, reason=reason) for number in sorted(waiting)]


class _Waiting:
    """The paused trials that nothing was decided about."""

    def __init__(self) -> None:
        self.numbers: set[int] = set()

    def take(self, _: StudyState, trial: Trial) -> None:
        """See `Index.take`."""
        if trial.state == "paused" and trial.advance is None:
            self.numbers.add(trial.number)
        else:
            self.numbers.discard(trial.number)
