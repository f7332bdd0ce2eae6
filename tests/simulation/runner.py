"""A runner without training: its workers move one message at a time, in an order that a seed draws.

They do what real ones do: fail, get lost, come back after they were thought lost, and publish checkpoints for real.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from random import Random

from tune_tasks.errors import Unavailable
from tune_tasks.execution import Began, Message, Over, Returned, Row, Saved, TrialTask
from tune_tasks.store import Objects, publish

LENGTH = 4
"""Steps after which an objective returns."""


class Worker:
    """An attempt while it runs: an iterator of what it says."""

    def __init__(self, task: TrialTask, says: Iterator[Message]) -> None:
        self.task, self.says, self.asked = task, says, ""


class ScriptedRunner:
    """Two workers, and room for one task more. Loses a share of the attempts; a trial with a high `x` fails."""

    slots = 2

    def __init__(self, objects: Objects, random: Random, file: Path, *, losses: float = 0.1) -> None:
        self._objects, self._random, self._file, self._losses = objects, random, file, losses
        self._tasks: list[TrialTask] = []
        self._workers: list[Worker] = []
        self._zombies: list[Worker] = []
        self._messages: list[Message] = []

    def open(self, deliver: Callable[[Message], None]) -> None:
        self._deliver = deliver

    def room(self, waiting: int) -> int:
        return self.slots + 1 - len(self._tasks) - len(self._workers)

    def submit(self, tasks: Sequence[TrialTask]) -> None:
        self._tasks.extend(tasks)

    def wait(self, timeout: float) -> None:
        while self._tasks and len(self._workers) < self.slots:
            worker = Worker(self._tasks.pop(0), iter(()))
            worker.says = self._attempt(worker)
            self._workers.append(worker)
        moving = self._random.choice([*self._workers, *self._zombies]) if self._workers else None
        said, self._messages = self._messages, []
        if moving is not None:
            said.append(next(moving.says))
        for message in said:
            if isinstance(message, Over):
                self._end(message)
            self._deliver(message)

    def stop(self, trial: int, *, pause: bool) -> None:
        for worker in self._workers:
            if worker.task.trial == trial and worker.asked != "stop":
                worker.asked = "pause" if pause else "stop"
        for task in [task for task in self._tasks if task.trial == trial]:
            self._tasks.remove(task)
            self._messages.append(Returned(task.trial, task.attempt))

    def avoid(self, nodes: Collection[str]) -> None:
        pass

    def close(self) -> None:
        self._tasks.clear()

    def _end(self, over: Over) -> None:
        worker = next(w for w in self._workers if w.task[:2] == (over.trial, over.attempt))
        self._workers.remove(worker)
        if over.outcome == "lost":
            worker.says = self._zombie(worker.task)
            self._zombies.append(worker)

    def _attempt(self, worker: Worker) -> Iterator[Message]:
        trial, attempt, config, budget, checkpoint = worker.task
        step = checkpoint[0] if checkpoint else 0
        yield Began(trial, attempt, step, "worker", time.time())
        while True:
            if self._random.random() < self._losses:
                yield Over(trial, attempt, "lost", "it went away", None, time.time())
            if config["x"] > 0.8 and step == 1:
                yield Over(trial, attempt, "failed", "too high", "ArithmeticError", time.time())
            step += 1
            yield Row(trial, attempt, step, time.time(), {"loss": config["x"] / step})
            saved = False
            if self._random.random() < 0.7:
                try:
                    reference = publish(self._objects, self._file, f"ckpt/{trial:06d}/{attempt}/{step}")
                except Unavailable as error:
                    yield Over(trial, attempt, "lost", str(error), "CheckpointError", time.time())
                else:
                    yield Saved(trial, attempt, step, reference, time.time())
                    saved = True
            outcome = _outcome(worker.asked, step, budget, saved=saved)
            if outcome:
                yield Over(trial, attempt, outcome, None, None, time.time())

    def _zombie(self, task: TrialTask) -> Iterator[Message]:
        """What comes from a worker that was only thought lost; it must not count."""
        step = task.checkpoint[0] if task.checkpoint else 0
        while True:
            step += 1
            yield Row(task.trial, task.attempt, step, time.time(), {"loss": -1.0})


def _outcome(asked: str, step: int, budget: int | None, *, saved: bool) -> str | None:
    if budget is not None and step >= budget:
        return "reached"
    if asked == "stop":
        return "stopped"
    if asked == "pause" and saved:
        return "carried"
    return "returned" if step >= LENGTH else None
