"""One worker, as the driver sees it: its actor, the tasks that it has, and how it stands.

This module must not decide whether a worker is kept, and must not tell the driver anything.
"""

from __future__ import annotations

import functools
import pickle
import time
import uuid
from collections.abc import Collection
from contextlib import suppress
from typing import Any, NamedTuple

from tune_tasks.execution import Began, TrialTask, placement
from tune_tasks.execution.placement import Shape
from tune_tasks.execution.worker import Terms, Worker
from tune_tasks.spec import StudySpec

_LEAVE_SECONDS = 5.0
"""That workers get at their end to bring output and checkpoints to the store."""
_LONGEST_GAP = 1.0


class Clock:
    """Seconds in which this driver was awake: one that was stopped for an hour has waited for nobody meanwhile."""

    def __init__(self) -> None:
        self.now = 0.0
        self._last = time.monotonic()

    def tick(self) -> None:
        """Goes on; called whenever the driver is about to listen."""
        now = time.monotonic()
        self.now += min(now - self._last, _LONGEST_GAP)
        self._last = now


class Kit(NamedTuple):
    """What every worker of a runner gets; a large `workload` lies in Ray's store."""

    spec: StudySpec
    workload: Any
    runtime_env: dict[str, Any]


class Hired:
    """A worker from when Ray was asked for it until its process is ended."""

    def __init__(self, kit: Kit, shape: Shape, clock: Clock, avoided: Collection[str], *, ahead: bool = False) -> None:
        """`ahead`: hired for a place that is not there yet, so that an autoscaler makes one."""
        execution, self._clock, self._ahead = kit.spec.execution, clock, ahead
        self.name, self.shape, self.avoided = uuid.uuid4().hex, shape, frozenset(avoided)
        self._group = placement.gang(shape, avoided)
        options = placement.options(shape, self._group, avoided)
        if kit.runtime_env:
            options["runtime_env"] = kit.runtime_env
        terms = Terms(self.name, execution.max_leak, execution.notice)
        self.actor = _actor_class().options(**options).remote(terms, kit.workload)
        self.node = ""
        self.gang: frozenset[str] = frozenset()
        """The other nodes that its gang lies on."""
        self.torn = ""
        """The one of them that has gone; the trial that runs has until `torn_by` to end by itself."""
        self.torn_by = float("inf")
        self.tasks: dict[int, TrialTask] = {}
        self.began: Began | None = None
        self.retired = False
        self.gone_by: float | None = None
        """When the machine will have gone, in seconds since the epoch, for a worker that was told so."""
        self.left_by: float | None = None
        """When a worker that was dismissed is ended, though it has not said that it is done."""
        self.heard = self.idle_since = clock.now
        self._since = 0.0
        self._recalled = False
        self._stops: dict[int, float] = {}
        self.call = self.actor.fetch.remote()

    @property
    def ready(self) -> bool:
        """Whether it is up, and may be given tasks."""
        return bool(self.node) and not self.retired

    @property
    def starting(self) -> bool:
        """Whether nothing was heard of it: Ray may be looking for a place for it still."""
        return not self.node

    @property
    def scout(self) -> bool:
        """Whether it waits for a node that an autoscaler may bring."""
        return self._ahead and self.starting

    @property
    def age(self) -> float:
        """Seconds since its running trial began; 0 where none runs."""
        return time.monotonic() - self._since if self.began is not None else 0.0

    @property
    def idle(self) -> float:
        """Seconds for which it has had no task."""
        return 0.0 if self.tasks else self._clock.now - self.idle_since

    @property
    def silence(self) -> float:
        """Seconds for which nothing was heard of a worker that is up; one that Ray is starting is for Ray to watch."""
        return 0.0 if self.starting else self._clock.now - self.heard

    @property
    def overdue(self) -> TrialTask | None:
        """The trial that runs though it should have stopped by now."""
        running = self.began.trial if self.began is not None else None
        return self.tasks.get(running) if running is not None and self._late(running) else None

    @property
    def nodes(self) -> frozenset[str]:
        """All nodes that it lies on."""
        return self.gang | {self.node}

    def tears(self, node: str, grace: float) -> None:
        """Notes that a node of its gang has gone; it gets no more tasks."""
        self.torn, self.torn_by = node, self._clock.now + grace
        self.retired = True
        self.recall()

    def listen(self) -> None:
        """Asks for what it has to say next, after an answer."""
        self.heard = self._clock.now
        self.call = self.actor.fetch.remote()

    def order(self, tasks: list[TrialTask]) -> None:
        """Hands over tasks that are noted already; asks to be told when half of all are left."""
        self._recalled = False
        self.actor.order.remote(pickle.dumps(tasks, protocol=5), len(self.tasks) // 2)

    def recall(self) -> None:
        """Asks for the tasks that have not begun, once."""
        if not self._recalled:
            self._recalled = True
            self.actor.recall.remote()

    def stop(self, trial: int, grace: float | None) -> None:
        """Passes a stop on; without `grace`, in seconds, the trial is to pause at a checkpoint, however late."""
        self.actor.stop.remote(trial, self.tasks[trial].attempt, grace is None)
        if grace is not None:
            self._stops.setdefault(trial, self._clock.now + grace)

    def move(self, why: str, deadline: float | None, gone_by: float) -> None:
        """Tells that the machine goes away; it keeps its place there, so that no other worker gets it, for so long."""
        self.retired, self.gone_by = True, gone_by
        self.actor.move.remote(why, deadline)

    def leave(self) -> None:
        """Has it bring what it still holds to the store; its call is answered when it has."""
        self.retired, self.left_by = True, self._clock.now + _LEAVE_SECONDS
        self.call = self.actor.leave.remote()

    def begins(self, began: Began) -> None:
        """Notes what runs now."""
        self.began, self._since = began, time.monotonic()

    def forget(self, trial: int) -> None:
        """Lets go of a task."""
        self.tasks.pop(trial, None)
        self._stops.pop(trial, None)
        if not self.tasks:
            self.idle_since = self._clock.now

    def kill(self) -> None:
        """Ends its process and its gang, whatever runs in them."""
        import ray

        with suppress(Exception):  # it may be gone already
            ray.kill(self.actor)
        if self._group is not None:
            with suppress(Exception):
                placement.release(self._group)

    def _late(self, trial: int) -> bool:
        return self._stops.get(trial, float("inf")) <= self._clock.now


@functools.cache
def _actor_class() -> Any:
    """The worker as Ray's actor: orders are carried out in their order, while another thread waits for messages."""
    import ray

    for name in ("order", "stop", "recall", "move", "leave"):
        ray.method(concurrency_group="orders")(getattr(Worker, name))
    ray.method(concurrency_group="messages")(Worker.fetch)
    remote: Any = ray.remote  # its types do not know concurrency groups
    return remote(concurrency_groups={"orders": 1, "messages": 1})(Worker)
