"""Successive halving: all trials wait at a rung for one another, then the best part goes on.

Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS 2016.
"""

from __future__ import annotations

from tune_tasks.events import Advance, Prune
from tune_tasks.schedulers.rungs import Halving, halve, rungs
from tune_tasks.study import StudyState


class SuccessiveHalving(Halving):
    """One bracket over all trials of the study: at each rung one in `reduction_factor` advances, the rest is pruned."""

    def first_budget(self, number: int) -> int:  # noqa: ARG002  # the same for every trial
        """The lowest rung."""
        return rungs(self.min_budget, self.max_budget, self.reduction_factor)[0]

    def review(self, history: StudyState, *, closing: bool) -> list[Advance | Prune]:
        """Decides the lowest open rung once every trial that can reach it has."""
        complete = closing or history.exhausted or len(history.trials) >= history.spec.budget.trials
        levels = rungs(self.min_budget, self.max_budget, self.reduction_factor)
        return halve(self, history, history.trials, levels, complete=complete)
