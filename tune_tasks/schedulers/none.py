"""No scheduler: every trial runs to its end."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tune_tasks.events import Advance, Prune
from tune_tasks.schedulers.onward import onward
from tune_tasks.schedulers.rungs import at_least
from tune_tasks.study import StudyState, Trial


class NoScheduler(BaseModel):
    """Stops no trial; a trial is complete at `max_budget`, or when its objective returns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_budget: Annotated[int, at_least(1)] | None = Field(
        default=None, description="steps at which a trial is complete; by default its objective decides"
    )

    def first_budget(self, number: int) -> int | None:  # noqa: ARG002  # the same for every trial
        """Everything at once."""
        return self.max_budget

    def review(self, history: StudyState, *, closing: bool) -> list[Advance | Prune]:  # noqa: ARG002  # nobody waits
        """Pauses no trial; those that are paused because the study was extended go on."""
        return [*onward(history, self.max_budget)]

    def watch(self, history: StudyState, trial: Trial) -> Prune | None:  # noqa: ARG002  # nothing is stopped
        """Lets a running trial run."""
        return None
