"""TPE: proposes where good trials are dense and bad ones are not, with the sampler of Optuna 5.

Bergstra et al., Algorithms for Hyper-Parameter Optimization, NIPS 2011; the multivariate form of Falkner et al., BOHB,
ICML 2018, section 3.2; Optuna's defaults follow Watanabe, arXiv 2304.11127. This module must not keep anything between
calls: a proposal depends on the history and the seed alone.
"""

from __future__ import annotations

import heapq
import math

from pydantic import BaseModel, ConfigDict, Field

from tune_tasks.events import Proposal
from tune_tasks.samplers import generator
from tune_tasks.samplers.optuna_study import OptunaStudy
from tune_tasks.samplers.untried import Candidates, draws, propose_untried
from tune_tasks.study import StudyState, Trial

_GOOD = 25
"""Optuna models the best tenth of the trials, at most this many, as the good ones."""


class TPESampler(BaseModel):
    """Multivariate TPE over the trials so far; new ones that wait or run count as bad, so that a batch spreads out.

    A trial that ran to its end counts by its value; one that was paused or pruned counts behind all of those, first by
    how far it came, then by its best value, as Optuna orders pruned trials. So does one that advanced and now goes on:
    it is among the best, and Optuna alone would count it as bad while it runs. A failed trial is not modelled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="another seed gives other proposals")
    startup: int = Field(default=10, ge=1, description="trials with a result before the model is used")
    candidates: int = Field(default=24, ge=1, description="draws from the good trials that compete for each proposal")
    window: int = Field(
        default=1000,
        ge=100,
        description="trials that the model sees: the best, and the newest of the others; bounds the time of a proposal",
    )

    def propose(self, history: StudyState, count: int) -> list[Proposal]:
        """Returns up to `count` configurations; fewer where a finite space is used up."""
        space = history.spec.space
        known, waiting = _split(history)
        if len(known) < self.startup:
            reason = f"start-up: random until {self.startup} trials have a result"
            return propose_untried(
                history, count, self.seed, lambda number: draws(space, generator(self.seed, number), reason)
            )
        study = self._study(history, known, waiting)

        def candidates(number: int) -> Candidates:
            yield study.ask(), f"expected improvement over {len(known)} trials (TPE)"
            yield from draws(space, generator(self.seed, number), "random, as TPE's proposal was tried before")

        return propose_untried(history, count, self.seed, candidates, study.take)

    def _study(self, history: StudyState, known: list[Trial], waiting: list[Trial]) -> OptunaStudy:
        from optuna.samplers import TPESampler as Optunas

        count = len(history.trials)
        sampler = Optunas(
            n_startup_trials=0,
            n_ei_candidates=self.candidates,
            multivariate=True,
            constant_liar=True,
            seed=generator(self.seed, count).getrandbits(32),
        )
        study = OptunaStudy(sampler, history.spec.space, history.sign, count)
        study.show(self._modelled(known, history.sign))
        study.wait(waiting)
        return study

    def _modelled(self, known: list[Trial], sign: float) -> list[Trial]:
        """The trials that the model sees: of more than `window`, the best, by Optuna's order, and the newest."""
        if len(known) <= self.window:
            return known
        good = heapq.nsmallest(_GOOD, known, key=lambda trial: _order(trial, sign))
        taken = {trial.number for trial in good}
        others = [trial for trial in known if trial.number not in taken]
        return [*good, *others[len(good) - self.window :]]


def _split(history: StudyState) -> tuple[list[Trial], list[Trial]]:
    """The trials that have shown something, and those that are tried for the first time now."""
    lowest = min((trial.target for trial in history.trials if trial.target is not None), default=0)
    known: list[Trial] = []
    waiting: list[Trial] = []
    for trial in history.trials:
        if trial.state in {"queued", "running"} and (trial.value is None or (trial.target or 0) <= lowest):
            waiting.append(trial)
        elif trial.value is not None and trial.state != "failed":
            known.append(trial)
    return known, waiting


def _order(trial: Trial, sign: float) -> tuple[float, float]:
    value = sign * (trial.value or 0.0)
    return (-math.inf if trial.state == "completed" else -trial.budget, value)
