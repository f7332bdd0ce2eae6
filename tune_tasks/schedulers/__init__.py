"""Who goes on and who stops: the protocol of a scheduler. One strategy a file.

A scheduler is a frozen pydantic model whose fields are its options. It must be a pure function of the history: no
clock, no randomness, no I/O, and no predicate writes. Every decision has a reason that a person understands.
A package adds its own under the entry point group `tune_tasks.schedulers`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from tune_tasks.events import Advance, Prune
from tune_tasks.study import StudyState, Trial

GROUP = "tune_tasks.schedulers"


@runtime_checkable
class Scheduler(Protocol):
    """Decides how far each trial may go. Budgets are in steps: one report is one step."""

    @property
    def max_budget(self) -> int | None:
        """The budget at which a trial is complete; None where a trial ends when its objective returns."""
        ...

    def first_budget(self, number: int) -> int | None:
        """The budget up to which a new trial runs before anything is decided about it."""
        ...

    def review(self, history: StudyState, *, closing: bool) -> list[Advance | Prune]:
        """Decides about paused trials that have no `advance` yet.

        `closing` says that no further trial will be sampled and none waits or runs: a synchronous scheduler need not
        wait for more results. A trial that is named in no decision stays paused.
        """
        ...

    def watch(self, history: StudyState, trial: Trial) -> Prune | None:
        """Decides about a running trial that has just reported step `trial.budget`; None lets it run."""
        ...
