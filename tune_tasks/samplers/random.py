"""Random search: every trial is drawn on its own, uniformly on the declared scale of each parameter.

Bergstra and Bengio, Random Search for Hyper-Parameter Optimization, JMLR 13 (2012).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from tune_tasks.events import Proposal
from tune_tasks.samplers import generator
from tune_tasks.samplers.untried import draws, propose_untried
from tune_tasks.study import StudyState


class RandomSampler(BaseModel):
    """Draws each trial from its seed and number alone, whatever came before; leaves out what was tried."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="another seed draws other configurations")

    def propose(self, history: StudyState, count: int) -> list[Proposal]:
        """Returns up to `count` random configurations; fewer where a finite space is used up."""
        space = history.spec.space
        return propose_untried(
            history, count, self.seed, lambda number: draws(space, generator(self.seed, number), "random")
        )
