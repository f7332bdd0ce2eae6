"""A study told with its metrics, errors, checkpoints and times, for tests of what shows or publishes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tune_tasks.events import (
    Advance,
    Checkpointed,
    CheckpointRef,
    Created,
    Ended,
    Event,
    Judged,
    Launched,
    Opened,
    Prune,
    Reports,
)
from tune_tasks.spec import StudySpec
from tune_tasks.study import StudyState
from tune_tasks.testing.histories import History, Outcome


class Story(History):
    """A history whose clock starts at 1000 s and goes on by a second for each report."""

    def __init__(self, spec: StudySpec, study: str = "test") -> None:
        self.state = StudyState()
        self.events: list[Event] = []
        self.seconds = 1000.0
        self.apply(Created(study=study, spec=spec.record(), folder=None, time=self.time))

    @property
    def time(self) -> float:
        """Seconds since the epoch."""
        return self.seconds

    def open(self) -> None:
        """A driver takes the study over, and its time counts."""
        self.apply(Opened(epoch=self.state.epoch + 1, owner="test", time=self.time))

    def propose(self, params: Mapping[str, Any], budget: int | None = None, *, last: bool = False) -> int:
        """Plans one new trial and returns its number."""
        return self.plan([params], budget, last=last)[0]

    def train(
        self,
        trial: int,
        reports: Sequence[Mapping[str, float]],
        outcome: Outcome | None = "reached",
        *,
        error: str | None = None,
        retry: bool = False,
        checkpoint: CheckpointRef | None = None,
    ) -> None:
        """Runs one attempt; `checkpoint` is what it saved with its last report, `outcome` None leaves it running."""
        self.start(trial)
        known = self.state.trials[trial]
        steps = list(range(known.budget + 1, known.budget + 1 + len(reports)))
        self.tell(trial, steps, reports)
        about = {"trial": trial, "attempt": known.attempts}
        if checkpoint:
            self.apply(Checkpointed(**about, step=steps[-1], checkpoint=checkpoint, time=self.time))
        if outcome:
            self.apply(Ended(**about, outcome=outcome, error=error, retry=retry, time=self.time))

    def tell(self, trial: int, steps: list[int], reports: Sequence[Mapping[str, float]]) -> None:
        """A running trial reports these steps, a second each, in one commit."""
        names = sorted({name for report in reports for name in report})
        times = [self.seconds + index + 1 for index in range(len(steps))]
        self.seconds += len(steps)
        self.apply(
            Reports(
                trial=[trial] * len(steps),
                attempt=[self.state.trials[trial].attempts] * len(steps),
                step=steps,
                time=times,
                metrics={name: [report.get(name) for report in reports] for name in names},
            )
        )

    def advance(self, trial: int, budget: int, *, last: bool = False, reason: str = "among the best") -> None:
        """Decides that a paused trial goes on, and plans it."""
        self.decide([Advance(trial=trial, budget=budget, last=last, reason=reason)])

    def give_up(self, trial: int, reason: str) -> None:
        """Decides that a trial stops for good."""
        self.decide([Prune(trial=trial, reason=reason)])

    def rest(self) -> None:
        """The launch step is over, and the driver's time stops."""
        about = {"batch": "batch", "states": {}, "best": None, "value": None, "reason": "over", "time": self.time}
        self.apply(Launched(key="batch/launch", **about))

    def finish(self, reason: str = "all trials are over") -> None:
        """Decides that the study is done."""
        about = {"batch": "batch", "advances": (), "prunes": (), "best": None, "value": None, "time": self.time}
        self.apply(Judged(key="batch/evaluate", done=True, reason=reason, **about))
