"""Rungs: the budgets at which trials are compared, and the rank of a trial among those that came so far.

What successive halving, ASHA and Hyperband have in common, in whole steps, without a logarithm, which is off by one
rung at exact powers. This module must not decide when a rung is complete: each scheduler has its own rule.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from tune_tasks.events import Advance, Prune
from tune_tasks.study import OVER, StudyState, Trial


def at_least(low: int) -> AfterValidator:
    """Refuses a smaller number, by the name of its option."""

    def check(value: int, info: ValidationInfo) -> int:
        if value < low:
            raise ValueError(f"{info.field_name} is {value}, must be at least {low}")
        return value

    return AfterValidator(check)


class Halving(BaseModel):
    """The options of every scheduler that lets one in `reduction_factor` trials go on from rung to rung."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_budget: Annotated[int, at_least(1)] = Field(default=1, description="steps before a trial is first compared")
    max_budget: Annotated[int, at_least(1)] = Field(description="steps at which a trial is complete")
    reduction_factor: Annotated[int, at_least(2)] = Field(
        default=3, description="of so many trials at a rung one goes on, and its budget grows as many times"
    )

    @field_validator("max_budget")
    @classmethod
    def _above_the_least(cls, value: int, info: ValidationInfo) -> int:
        least = info.data.get("min_budget", value)
        if least > value:
            raise ValueError(f"min_budget is {least}, must be at most max_budget, which is {value}")
        return value

    def watch(self, history: StudyState, trial: Trial) -> Prune | None:  # noqa: ARG002  # trials stop at rungs alone
        """Lets a running trial run."""
        return None

    def advance(self, trial: Trial, budget: int, reason: str) -> Advance:
        """Sends a trial to a rung; the last rung completes it."""
        return Advance(trial=trial.number, budget=budget, last=budget == self.max_budget, reason=reason)


def rungs(min_budget: int, max_budget: int, reduction_factor: int) -> tuple[int, ...]:
    """The budgets min_budget * reduction_factor^k below max_budget, then max_budget itself."""
    found, budget = [], min_budget
    while budget < max_budget:
        found.append(budget)
        budget *= reduction_factor
    return (*found, max_budget)


def undecided(trials: Iterable[Trial]) -> list[Trial]:
    """The paused trials that nothing was decided about."""
    return [trial for trial in trials if trial.state == "paused" and trial.advance is None]


def rung_of(trial: Trial, levels: Sequence[int]) -> int | None:
    """The rung at which a trial stands: the highest that it has reached; None below the first.

    A study that was extended may have other rungs than the ones to which its trials ran.
    """
    place = bisect_right(levels, trial.budget)
    return levels[place - 1] if place else None


def enter(options: Halving, trials: Iterable[Trial], level: int) -> list[Advance]:
    """Sends the trials that wait below the first rung there."""
    return [options.advance(trial, level, f"goes on to the first rung, {_steps(level)}") for trial in trials]


def key_at(history: StudyState, trial: Trial, budget: int) -> float | None:
    """What a trial is ranked by at a budget, the lowest first; None where it did not run so far, or failed.

    It counts by its best value up to that budget, whatever became of it later; one without a value is last.
    """
    if trial.budget < budget or trial.state == "failed":
        return None
    value = trial.value if trial.budget == budget else history.value_at(trial.number, budget)
    return math.inf if value is None or math.isnan(value) else history.sign * value


def ranking(history: StudyState, trials: Iterable[Trial], budget: int) -> list[int]:
    """The numbers of the trials that ran up to `budget` and did not fail, best first, of equals the earlier."""
    keys = ((key_at(history, trial, budget), trial.number) for trial in trials)
    return [number for _, number in sorted((key, number) for key, number in keys if key is not None)]


def standing(rank: int, count: int, budget: int, advancing: int) -> str:
    """Says how a trial stands at a rung, in words for a person."""
    return (
        f"rank {rank} of {count} at {_steps(budget)}, the top {advancing} {'advances' if advancing == 1 else 'advance'}"
    )


def _steps(budget: int) -> str:
    return "1 step" if budget == 1 else f"{budget} steps"


def halve(
    options: Halving, history: StudyState, members: Sequence[Trial], levels: Sequence[int], *, complete: bool
) -> list[Advance | Prune]:
    """Decides one synchronous bracket: its lowest open rung, once every member that can reach the rung has.

    `complete` says that the bracket gets no further member. One in `reduction_factor` advances, and at least one, so
    that a bracket cut short by the budget still ends with a complete trial.
    """
    if not complete:
        return []
    alive = [trial for trial in members if trial.state not in OVER]
    below = [trial for trial in undecided(alive) if rung_of(trial, levels) is None]
    if below:
        return [*enter(options, below, levels[0])]
    decisions: list[Advance | Prune] = []
    for budget, following in pairwise(levels):
        if not all(_arrived(trial, budget) for trial in alive):
            break
        here = [trial for trial in undecided(alive) if rung_of(trial, levels) == budget]
        decisions += _cut(options, history, members, here, (budget, following)) if here else []
        if any(isinstance(decision, Advance) for decision in decisions):
            break
        # Where all of a rung are pruned, the better ones stand above it: the study was extended. The next rung is open.
        pruned = {decision.trial for decision in decisions}
        alive = [trial for trial in alive if trial.number not in pruned]
    return decisions


def _arrived(trial: Trial, budget: int) -> bool:
    return trial.budget >= budget and (trial.state == "paused" or trial.target is None or trial.target > budget)


def _cut(
    options: Halving, history: StudyState, members: Sequence[Trial], here: Sequence[Trial], step: tuple[int, int]
) -> list[Advance | Prune]:
    budget, following = step
    ranked = ranking(history, members, budget)
    advancing = max(1, len(ranked) // options.reduction_factor)
    ranks = {number: rank for rank, number in enumerate(ranked, 1)}
    decisions: list[Advance | Prune] = []
    for trial in here:
        rank = ranks[trial.number]
        reason = standing(rank, len(ranked), budget, advancing)
        if rank <= advancing:
            decisions.append(options.advance(trial, following, reason))
        else:
            decisions.append(Prune(trial=trial.number, reason=reason))
    return decisions
