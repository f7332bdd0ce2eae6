"""Median stopping: a trial that does worse than half of the others did on average is stopped while it runs.

Golovin et al., Google Vizier: A Service for Black-Box Optimization, KDD 2017, section 3.2.2. There only completed
trials are compared with; here every other trial that has come as far, so that the first batch can be stopped too.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tune_tasks.events import Advance, Prune
from tune_tasks.schedulers.averages import median_of_others
from tune_tasks.schedulers.onward import onward
from tune_tasks.schedulers.rungs import at_least
from tune_tasks.study import StudyState, Trial


class MedianStopping(BaseModel):
    """Stops a trial whose best value so far is strictly worse than the median of the others' running averages."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_budget: Annotated[int, at_least(1)] | None = Field(
        default=None, description="steps at which a trial is complete; by default its objective decides"
    )
    grace: Annotated[int, at_least(1)] = Field(default=4, description="the first step at which a trial can be stopped")
    min_trials: Annotated[int, at_least(1)] = Field(
        default=3, description="other trials that must have come as far before one is stopped"
    )

    def first_budget(self, number: int) -> int | None:  # noqa: ARG002  # the same for every trial
        """Everything at once; `watch` may end it earlier."""
        return self.max_budget

    def review(self, history: StudyState, *, closing: bool) -> list[Advance | Prune]:  # noqa: ARG002  # nobody waits
        """Pauses no trial; those that are paused because the study was extended go on."""
        return [*onward(history, self.max_budget)]

    def watch(self, history: StudyState, trial: Trial) -> Prune | None:
        """Prunes the trial, or lets it run; at its last step it is complete whatever it reached."""
        step = trial.budget
        if trial.value is None or step < self.grace or step == self.max_budget:
            return None
        median, others = median_of_others(history, trial, step)
        if others < self.min_trials or history.sign * trial.value <= history.sign * median:
            return None
        return Prune(
            trial=trial.number,
            reason=f"best {trial.value:.6g} after {step} steps is worse than {median:.6g}, "
            f"the median of {others} other trials",
        )
