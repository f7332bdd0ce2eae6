"""How trials run: the protocol of a runner, what it is given, and what it says. One runner a file.

A runner knows workers, not tuning: it must not import `decide`, a sampler or a scheduler, and must not write to the
log. What it learns it hands to `deliver` as messages, in the order in which they happened on each worker.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from tune_tasks.events import CheckpointRef


class TrialTask(NamedTuple):
    """One attempt at a trial: run `config` up to `budget` steps, on from `checkpoint` (and its step) if any."""

    trial: int
    attempt: int
    config: dict[str, Any]
    budget: int | None
    checkpoint: tuple[int, CheckpointRef] | None


class Began(NamedTuple):
    """A worker began an attempt. `time` is in seconds since the epoch, on the worker's clock.

    `node` is Ray's id of the worker's node; empty where there is none.
    """

    trial: int
    attempt: int
    step: int
    worker: str
    time: float
    node: str = ""


class Row(NamedTuple):
    """One report: finite metrics at one step of one attempt."""

    trial: int
    attempt: int
    step: int
    time: float
    metrics: dict[str, float]


class Saved(NamedTuple):
    """A checkpoint lies complete in the store; it counts only once the log says so."""

    trial: int
    attempt: int
    step: int
    checkpoint: CheckpointRef
    time: float


class Over(NamedTuple):
    """An attempt is over. `outcome` is that of `events.Ended`; `kind` names the error's class for a failed trial.

    `node` is the one that was lost, by Ray's id, where it is not that of the worker.
    """

    trial: int
    attempt: int
    outcome: str
    error: str | None
    kind: str | None
    time: float
    node: str = ""


class Returned(NamedTuple):
    """A task that was submitted will not be begun here, through no fault of its own; it may be submitted again.

    That may happen to any task that has not begun, for example where it waited behind a long one.
    """

    trial: int
    attempt: int


Message: TypeAlias = Began | Row | Saved | Over | Returned


class Runner(Protocol):
    """Runs attempts at trials on workers that stay warm from one to the next."""

    @property
    def slots(self) -> int:
        """How many trials run at once; it may follow the size of a cluster."""
        ...

    def open(self, deliver: Callable[[Message], None]) -> None:
        """Makes the workers ready. `deliver` is called only from inside `wait`, on the thread that calls it.

        May be called again for another driver: idle workers stay warm, tasks of the earlier driver are dropped.
        """
        ...

    def room(self, waiting: int) -> int:
        """How many more tasks the workers take now, a few ahead of need where trials are short.

        `waiting` tasks are to come: more workers are asked for where these are too few for them.
        """
        ...

    def submit(self, tasks: Sequence[TrialTask]) -> None:
        """Hands tasks to workers; returns at once."""
        ...

    def wait(self, timeout: float) -> None:
        """Delivers what has happened; waits up to `timeout` seconds for the first message.

        A worker that is gone gives `Over` with outcome `lost` for the task that it ran, or was about to.
        """
        ...

    def stop(self, trial: int, *, pause: bool) -> None:
        """Asks a running trial to end at its next report; with `pause`, at its next report that has a checkpoint.

        A task that has not begun is given back as `Returned`. Where no report comes in time, the runner may end the
        worker instead: that is `Over` with outcome `stopped` too.
        """
        ...

    def avoid(self, nodes: Collection[str]) -> None:
        """Begins no more trials on these nodes."""
        ...

    def close(self) -> None:
        """Ends the workers and whatever runs on them. May be called twice, and from an exception handler."""
        ...
