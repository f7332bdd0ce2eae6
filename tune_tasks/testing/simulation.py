"""Runs a whole study without training: virtual workers of unequal speed, values from a function, time from a heap.

Decisions are those of the engine (`decide`), so that a sampler or scheduler is tried as it will be used. This module
must not sleep, start anything, or read a clock.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any, TypeAlias

from tune_tasks.decide import Place, Policy, judge, plan
from tune_tasks.events import Amended, Created, Ended, Event, Pruned, Reports, Started
from tune_tasks.spec import StudySpec
from tune_tasks.study import StudyState

Curve: TypeAlias = Callable[[dict[str, Any], int], float]
"""The metric of a configuration after so many steps."""


class Simulation:
    """A study in streaming mode: a free worker takes what advances, else a new trial."""

    def __init__(self, spec: StudySpec, policy: Policy, curve: Curve, *, workers: int = 4, seed: int = 0) -> None:
        """`seed` draws how long a step takes for each trial; it changes the order in which results arrive."""
        self.policy, self.curve, self.workers = policy, curve, workers
        self.length = 27
        self.fails: Callable[[int, int], bool] = lambda trial, step: False
        self.state, self.events = StudyState(), list[Event]()
        self._rng = random.Random(seed)  # noqa: S311  # a simulation
        self._pace: dict[int, float] = {}
        self._coming: list[tuple[float, int, int]] = []
        self._now = 0.0
        self._apply(Created(study="simulated", spec=spec.record(), folder=None, time=0.0))

    def run(self) -> StudyState:
        """Runs the study to its end. Raises `AssertionError` where it can neither run nor end."""
        while not self._decide():
            if not self._coming:
                states = [trial.state for trial in self.state.trials]
                raise AssertionError(f"the study neither runs nor ends: its trials are {states}")
            self._now, trial, step = heapq.heappop(self._coming)
            while not self._step(trial, step):
                self._now, trial, step = heapq.heappop(self._coming)
        return self.state

    def extend(self, policy: Policy, **changes: Any) -> None:
        """Opens a study that has ended again, with another policy; every trial that was complete is judged again."""
        spec = StudySpec(**{**self.state.spec.record(), **changes})
        reopened = tuple(trial.number for trial in self.state.trials if trial.state == "completed")
        self.policy = policy
        self._apply(Amended(spec=spec.record(), changes=("extended",), reopened=reopened, time=self._now))

    def _decide(self) -> bool:
        number = len(self.events)
        place = Place(f"main-{number:04d}", "main", number, f"main-{number:04d}")
        self._apply(judge(self.state, self.policy, place, time=self._now))
        if self.state.done:
            return True
        free = self.workers - len(self.state.running) - len(self.state.queue)
        self._apply(plan(self.state, self.policy, place, count=max(free, 0), carry=False, time=self._now))
        for trial in list(self.state.queue)[: self.workers - len(self.state.running)]:
            self._start(trial)
        return False

    def _start(self, number: int) -> None:
        trial = self.state.trials[number]
        attempt = trial.attempts + 1
        self._apply(Started(trial=number, attempt=attempt, step=trial.budget, worker="virtual", time=self._now))
        self._pace.setdefault(number, self._rng.lognormvariate(0, 1))
        self._next(number, trial.budget + 1)

    def _next(self, number: int, step: int) -> None:
        heapq.heappush(self._coming, (self._now + self._pace[number], number, step))

    def _step(self, number: int, step: int) -> bool:
        """Lets a trial report one step; says whether it gave its worker back."""
        trial = self.state.trials[number]
        if self.fails(number, step):
            return self._end(number, "failed")
        metrics: dict[str, list[float | None]] = {self.state.spec.metric: [self.curve(trial.params, step)]}
        row = {"trial": [number], "attempt": [trial.attempts], "step": [step], "time": [self._now]}
        self._apply(Reports(**row, metrics=metrics))
        trial = self.state.trials[number]
        prune = self.policy.scheduler.watch(self.state, trial)
        if prune is not None:
            self._apply(Pruned(trial=number, step=step, reason=prune.reason, time=self._now))
            return self._end(number, "stopped")
        if step == (trial.target or self.length):
            return self._end(number, "reached")
        self._next(number, step + 1)
        return False

    def _end(self, number: int, outcome: str) -> bool:
        fields = {"trial": number, "attempt": self.state.trials[number].attempts, "outcome": outcome, "time": self._now}
        self._apply(Ended.model_validate(fields))
        return True

    def _apply(self, event: Event) -> None:
        self.state.apply(event)
        self.events.append(event)
