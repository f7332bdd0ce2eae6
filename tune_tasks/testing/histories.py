"""Builds the state of a study event by event, as its log would, for tests of whatever reads a state.

This module must not set a field of a state: a history that cannot happen raises `ValueError` from the fold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from tune_tasks.events import (
    Advance,
    Assignment,
    Created,
    Ended,
    Event,
    Judged,
    Planned,
    Proposal,
    Prune,
    Reports,
    Started,
)
from tune_tasks.spec import StudySpec
from tune_tasks.study import StudyState

Outcome: TypeAlias = Literal["reached", "returned", "carried", "failed", "lost", "stopped"]


def study_spec(space: Mapping[str, Any], **changes: Any) -> StudySpec:
    """A spec for tests: minimises `loss` over `space`; its objective is never imported."""
    return StudySpec(
        **{"name": "test", "objective": "module:name", "metric": "loss", "mode": "min", **changes}, space=space
    )


class History:
    """A study told event by event: `state` is what is true after the last of `events`. Its clock ticks with each."""

    def __init__(self, spec: StudySpec) -> None:
        self.state = StudyState()
        self.events: list[Event] = []
        self.apply(Created(study="test", spec=spec.record(), folder=None, time=0.0))

    @property
    def time(self) -> float:
        """Seconds since the study began, one for each event."""
        return float(len(self.events))

    def apply(self, event: Event) -> None:
        """Takes one more event in."""
        self.state.apply(event)
        self.events.append(event)

    def plan(
        self, configurations: Iterable[Mapping[str, Any]], budget: int | None = None, *, last: bool = False
    ) -> list[int]:
        """Proposes new trials in one batch, to run up to `budget`, and returns their numbers."""
        proposals = [
            Proposal(number=number, params=dict(params), reason="made up by a test")
            for number, params in enumerate(configurations, len(self.state.trials))
        ]
        self._planned(proposals, [(proposal.number, budget, last) for proposal in proposals])
        return [proposal.number for proposal in proposals]

    def start(self, trial: int) -> None:
        """Begins the next attempt at a waiting trial."""
        known = self.state.trials[trial]
        self.apply(Started(trial=trial, attempt=known.attempts + 1, step=known.budget, worker="test", time=self.time))

    def report(self, trial: int, *values: float, step: int | None = None) -> None:
        """A running trial reports the metric of its next steps, or of those from `step` on."""
        known = self.state.trials[trial]
        first, count = step or known.budget + 1, len(values)
        self.apply(
            Reports(
                trial=[trial] * count,
                attempt=[known.attempts] * count,
                step=list(range(first, first + count)),
                time=[self.time] * count,
                metrics={self.state.spec.metric: list(values)},
            )
        )

    def end(self, trial: int, outcome: Outcome = "reached", *, retry: bool = False) -> None:
        """Ends the attempt that runs."""
        attempt = self.state.trials[trial].attempts
        error = "made up by a test" if outcome in {"failed", "lost"} else None
        self.apply(Ended(trial=trial, attempt=attempt, outcome=outcome, retry=retry, error=error, time=self.time))

    def run(self, trial: int, values: Sequence[float], outcome: Outcome = "reached") -> None:
        """Runs one whole attempt at a waiting trial."""
        self.start(trial)
        self.report(trial, *values)
        self.end(trial, outcome)

    def prune(self, *trials: int) -> None:
        """Decides that trials stop for good."""
        self.decide(Prune(trial=trial, reason="pruned by a test") for trial in trials)

    def decide(self, decisions: Iterable[Advance | Prune]) -> None:
        """Records what a scheduler decided, and plans the trials that advance."""
        taken = list(decisions)
        advances = [decision for decision in taken if isinstance(decision, Advance)]
        self.apply(
            Judged(
                key=f"batch-{len(self.events)}/evaluate",
                batch=f"batch-{len(self.events)}",
                advances=tuple(advances),
                prunes=tuple(decision for decision in taken if isinstance(decision, Prune)),
                done=False,
                best=None,
                value=None,
                reason="made up by a test",
                time=self.time,
            )
        )
        self._planned([], [(advance.trial, advance.budget, advance.last) for advance in advances])

    def _planned(self, proposals: Sequence[Proposal], runs: Iterable[tuple[int, int | None, bool]]) -> None:
        batch = f"batch-{len(self.events)}"
        assignments = [Assignment(trial=trial, budget=budget, last=last, reason="test") for trial, budget, last in runs]
        self.apply(
            Planned(
                key=f"{batch}/sample",
                run="main",
                round=0,
                batch=batch,
                proposals=tuple(proposals),
                assignments=tuple(assignments),
                exhausted=False,
                time=self.time,
            )
        )
