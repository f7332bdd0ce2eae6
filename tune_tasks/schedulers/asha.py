"""ASHA: asynchronous successive halving, in the form that pauses trials and lets the best go on.

Li et al., A System for Massively Parallel Hyperparameter Tuning, arXiv 1810.05934, Algorithm 2, with its stop-rate s
left at 0. The form that only stops trials is another algorithm. This module must not wait for a rung to fill.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from tune_tasks.events import Advance, Prune
from tune_tasks.indexes import Ranking
from tune_tasks.schedulers.rungs import Halving, enter, key_at, ranking, rung_of, rungs, standing, undecided
from tune_tasks.study import StudyState, Trial


class ASHA(Halving):
    """Lets a trial go on as soon as it is in the best 1 / `reduction_factor` of those that reached its rung so far."""

    def first_budget(self, number: int) -> int:  # noqa: ARG002  # the same for every trial
        """The lowest rung."""
        return self._rungs()[0]

    def review(self, history: StudyState, *, closing: bool) -> list[Advance | Prune]:
        """Advances from the top rung down; when `closing`, prunes what can never advance any more.

        The paper's rule never ends a search. Here, when no trial is to come, a rung from which none went on sends its
        best on all the same, so that a small study ends with a complete trial too.
        """
        levels = self._rungs()
        ladder = history.changes.index(history, (_Ladder, levels), lambda: _Ladder(levels))
        decisions: list[Advance | Prune] = [
            *enter(self, (history.trials[number] for number in sorted(ladder.below)), levels[0])
        ]
        for budget, following in reversed(list(pairwise(levels))):
            rung = ladder.rungs[budget]
            advancing = self._advancing(len(rung.reached), closing=closing)
            decisions += [
                self.advance(history.trials[number], following, standing(rank, len(rung.reached), budget, advancing))
                for rank, number in rung.top(advancing)
            ]
        return [*decisions, *self._leftovers(history, decisions)] if closing else decisions

    def _leftovers(self, history: StudyState, decisions: list[Advance | Prune]) -> list[Prune]:
        """The trials whose rung is final: above a rung that still sends trials up, the ranks are not."""
        waiting: dict[int, set[int]] = defaultdict(set)
        for trial in undecided(history.trials):
            waiting[rung_of(trial, self._rungs()) or 0].add(trial.number)
        advanced = {decision.trial for decision in decisions}
        prunes: list[Prune] = []
        for budget in sorted(waiting):
            left = waiting[budget] - advanced
            ranked = ranking(history, history.trials, budget)
            advancing = self._advancing(len(ranked), closing=True)
            prunes += [
                Prune(trial=number, reason=standing(rank, len(ranked), budget, advancing))
                for rank, number in enumerate(ranked, 1)
                if number in left
            ]
            if len(left) < len(waiting[budget]):
                break
        return prunes

    def _advancing(self, count: int, *, closing: bool) -> int:
        return max(count // self.reduction_factor, int(closing))

    def _rungs(self) -> tuple[int, ...]:
        return rungs(self.min_budget, self.max_budget, self.reduction_factor)


class _Rung:
    """Who came so far, and who of them waits there for a decision, each best first."""

    def __init__(self) -> None:
        self.reached, self.waiting = Ranking(), Ranking()

    def top(self, count: int) -> Iterator[tuple[int, int]]:
        """Those of the best `count` that wait, with their rank among all."""
        for number in self.waiting:
            rank = self.reached.rank(number)
            if rank > count:
                return
            yield rank, number


class _Ladder:
    """The rungs below the last, kept sorted, so that a review costs a search and not a pass over all trials."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        self._levels = levels
        self.rungs = {budget: _Rung() for budget in levels[:-1]}
        self.below: set[int] = set()

    def take(self, history: StudyState, trial: Trial) -> None:
        """See `Index.take`."""
        waits = trial.state == "paused" and trial.advance is None
        stands = rung_of(trial, self._levels)
        (self.below.add if waits and stands is None else self.below.discard)(trial.number)
        for budget, rung in self.rungs.items():
            key = key_at(history, trial, budget)
            rung.reached.put(trial.number, key)
            rung.waiting.put(trial.number, key if waits and stands == budget else None)
