"""Hyperband: brackets of successive halving that start with many short trials, with few long ones, and between.

Li et al., Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization, JMLR 18 (2018), Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from tune_tasks.events import Advance, Prune
from tune_tasks.schedulers.rungs import Halving, halve
from tune_tasks.study import StudyState


@dataclass(frozen=True, slots=True)
class Bracket:
    """Trials that are halved among themselves: `size` of them, compared at the budgets `rungs`."""

    size: int
    rungs: tuple[int, ...]


class Hyperband(Halving):
    """Fills the brackets in turn by trial number, the one with the shortest first rung first, round and round.

    Brackets overlap in time: while one waits at a rung, trials of the next are sampled. A bracket that the study's
    budget cuts short is halved as it is.
    """

    def brackets(self) -> tuple[Bracket, ...]:
        """The brackets s_max, ..., 0: ceil((s_max + 1) / (s + 1) * eta^s) trials from floor(R / eta^s) steps on."""
        eta, most = self.reduction_factor, 0
        while self.min_budget * eta ** (most + 1) <= self.max_budget:
            most += 1
        return tuple(
            Bracket(
                size=-(-(most + 1) * eta**s // (s + 1)),
                rungs=tuple(self.max_budget // eta**left for left in range(s, -1, -1)),
            )
            for s in range(most, -1, -1)
        )

    def first_budget(self, number: int) -> int:
        """The lowest rung of the trial's bracket."""
        brackets = self.brackets()
        place = number % sum(bracket.size for bracket in brackets)
        ends = accumulate(bracket.size for bracket in brackets)
        return next(bracket.rungs[0] for bracket, end in zip(brackets, ends, strict=True) if place < end)

    def placed(self, count: int) -> Iterator[tuple[int, Bracket]]:
        """The brackets that hold the first `count` trials, each with the number of its first trial."""
        brackets, start = self.brackets(), 0
        while True:
            for bracket in brackets:
                if start >= count:
                    return
                yield start, bracket
                start += bracket.size

    def review(self, history: StudyState, *, closing: bool) -> list[Advance | Prune]:
        """Decides, in each bracket, the lowest open rung once every trial that can reach it has."""
        decisions: list[Advance | Prune] = []
        final = closing or history.exhausted
        for start, bracket in self.placed(len(history.trials)):
            members = history.trials[start : start + bracket.size]
            expected = min(bracket.size, history.spec.budget.trials - start)
            complete = final or len(members) >= expected
            decisions += halve(self, history, members, bracket.rungs, complete=complete)
        return decisions
