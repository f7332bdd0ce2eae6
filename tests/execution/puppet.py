"""A runner whose trials do what a test says, at moments of a clock that the test owns."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Sequence
from itertools import count
from typing import Any

from tune_tasks.execution import Began, Message, Over, Returned, Row, TrialTask

Play = Callable[[TrialTask], list[tuple[float, Message]]]
"""What an attempt says, each with the seconds after it was handed out."""


class Puppet:
    """Runs `slots` trials at once in virtual time; one that is told to stop ends at its next report."""

    def __init__(self, play: Play, *, slots: int = 2) -> None:
        self.slots, self.now = slots, 1000.0
        self.asked: list[tuple[int, bool]] = []
        self.handed: list[tuple[float, int]] = []
        self.avoided: tuple[str, ...] = ()
        self.at: dict[float, Callable[[], None]] = {}
        self._play = play
        self._coming: list[Any] = []
        self._order = count()
        self._running: dict[int, TrialTask] = {}
        self._stopping: set[int] = set()
        self._deliver: Callable[[Message], None] = lambda _: None

    def clock(self) -> float:
        return self.now

    def open(self, deliver: Callable[[Message], None]) -> None:
        self._deliver = deliver

    def room(self, waiting: int) -> int:
        return self.slots - len(self._running)

    def submit(self, tasks: Sequence[TrialTask]) -> None:
        for task in tasks:
            self._running[task.trial] = task
            self.handed.append((self.now - 1000.0, task.trial))
            for after, message in self._play(task):
                heapq.heappush(self._coming, (self.now + after, next(self._order), message))

    def wait(self, timeout: float) -> None:
        end = self.now + timeout
        while self._coming and self._coming[0][0] <= end:
            self.now, _, message = heapq.heappop(self._coming)
            self._say(message)
        self.now = end
        for moment in [moment for moment in self.at if moment <= self.now - 1000.0]:
            self.at.pop(moment)()

    def stop(self, trial: int, *, pause: bool) -> None:
        self.asked.append((trial, pause))
        self._stopping.add(trial)

    def give_up(self, trial: int) -> None:
        """Ends a trial that was told to stop and does not report, as a runner does after its grace."""
        task = self._running[trial]
        heapq.heappush(self._coming, (self.now, next(self._order), over(task, "stopped")))

    def avoid(self, nodes: Collection[str]) -> None:
        self.avoided = tuple(nodes)

    def close(self) -> None:
        pass

    def _say(self, message: Message) -> None:
        task = self._running.get(message.trial)
        if task is None or task.attempt != message.attempt:
            return  # of an attempt that ended at a stop
        if isinstance(message, Over | Returned):
            del self._running[message.trial]
            self._stopping.discard(message.trial)
        self._deliver(message)
        if isinstance(message, Row) and message.trial in self._stopping:
            self._say(over(task, "stopped"))


def over(task: TrialTask, outcome: str = "reached", error: str | None = None) -> Over:
    return Over(task.trial, task.attempt, outcome, error, None, 0.0)


def steadily(seconds: Callable[[int], float], node: Callable[[TrialTask], str] = lambda _: "") -> Play:
    """Attempts that report each step after `seconds(trial)`, up to their budget."""

    def play(task: TrialTask) -> list[tuple[float, Message]]:
        first = task.checkpoint[0] if task.checkpoint else 0
        pace, last = seconds(task.trial), task.budget or 3
        began = Began(task.trial, task.attempt, first, "puppet", 0.0, node(task))
        rows = [
            (pace * (step - first), Row(task.trial, task.attempt, step, 0.0, {"loss": task.config["x"] / step}))
            for step in range(first + 1, last + 1)
        ]
        return [(0.0, began), *rows, (pace * (last - first), over(task))]

    return play
