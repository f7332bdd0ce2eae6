"""How tests drive a runner: specs and tasks made short, and a driver that keeps what it heard."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tune_tasks.events import CheckpointRef
from tune_tasks.execution import Message, Over, Returned, Row, Runner, TrialTask
from tune_tasks.spec import StudySpec
from tune_tasks.store import fetch, open_objects

DEADLINE = 120.0
"""Seconds after which a test gives up on a runner."""


def spec_for(objective: Any, **changes: Any) -> StudySpec:
    """A spec around an objective; only what a runner looks at matters."""
    given: dict[str, Any] = {
        "name": "contract",
        "objective": objective,
        "metric": "loss",
        "mode": "min",
        "space": {"x": {"type": "float", "low": 0, "high": 1}},
        "scheduler": {"name": "asha", "max_budget": 9},
        "resources": {"cpu": 1},
        "budget": {"concurrency": 2},
    }
    return StudySpec(**{**given, **changes})


def task(trial: int = 0, attempt: int = 1, **config: Any) -> TrialTask:
    """A task without a budget and without a checkpoint."""
    return TrialTask(trial, attempt, config, None, None)


class Story:
    """Drives a runner as a driver does, and keeps what it said."""

    def __init__(self, runner: Runner, on_message: Callable[[Message], None] = lambda _: None) -> None:
        self.messages: list[Message] = []
        self._runner, self._on_message = runner, on_message
        self._open: set[tuple[int, int]] = set()
        runner.open(self._hear)

    def run(self, *tasks: TrialTask) -> list[Message]:
        """Runs tasks, as the runner has room for them, until each is over or returned."""
        self.hand(*tasks)
        self.until(lambda: not self._open)
        return self.messages

    def hand(self, *tasks: TrialTask) -> None:
        """Submits tasks as there is room."""
        self._open |= {(task.trial, task.attempt) for task in tasks}
        waiting = list(tasks)

        def all_handed() -> bool:
            room = self._runner.room(len(waiting))
            now, waiting[:] = waiting[:room], waiting[room:]
            if now:
                self._runner.submit(now)
            return not waiting

        if not all_handed():
            self.until(all_handed)

    def until(self, reached: Callable[[], bool]) -> None:
        """Waits for something to become true."""
        end = time.monotonic() + DEADLINE
        while not reached():
            assert time.monotonic() < end, f"nothing came of it in {DEADLINE} s; heard so far: {self.messages}"
            self._runner.wait(0.05)

    def of(self, kind: type[Any], trial: int = 0, attempt: int = 1) -> list[Any]:
        """The messages of one kind about one attempt."""
        return [m for m in self.messages if isinstance(m, kind) and (m.trial, m.attempt) == (trial, attempt)]

    def over(self, trial: int = 0, attempt: int = 1) -> Over:
        """How an attempt ended."""
        (over,) = self.of(Over, trial, attempt)
        assert isinstance(over, Over)
        return over

    def steps(self, trial: int = 0, attempt: int = 1) -> list[int]:
        """The steps that an attempt reported."""
        return [row.step for row in self.of(Row, trial, attempt)]

    def _hear(self, message: Message) -> None:
        self.messages.append(message)
        if isinstance(message, Over | Returned):
            self._open.discard((message.trial, message.attempt))
        self._on_message(message)


def read_checkpoint(url: str, reference: CheckpointRef, target: Path) -> str:
    """The text in the checkpoint of `objectives.count_on`."""
    return (fetch(open_objects(url), reference, target) / "step.txt").read_text()


def read_log(url: str, trial: int, attempt: int = 1) -> str:
    """What an attempt printed."""
    data = open_objects(url).read(f"logs/{trial:06d}-{attempt}.txt")
    assert data is not None, "there is no such log"
    return data.decode()


def outcomes(messages: Sequence[Message]) -> list[str]:
    """How the attempts ended, in order."""
    return [message.outcome for message in messages if isinstance(message, Over)]
