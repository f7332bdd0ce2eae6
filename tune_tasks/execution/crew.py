"""The workers of a runner: hired while trials wait for them, kept warm, and dismissed where they are of no use.

This module must not hand out tasks, and must not tell the driver anything: who is lost is for the runner to say.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping

from tune_tasks.execution.hired import Clock, Hired, Kit
from tune_tasks.execution.nodes import Nodes
from tune_tasks.execution.output import claim
from tune_tasks.execution.placement import Shape

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 10.0
"""That a worker is kept without a task: another study may want its place."""
_UNPLACED = 1.0
"""Seconds after which a worker that does not come up is taken for one that finds no place."""
_LONG = 60.0
"""Seconds after which a person is told that a worker finds no place."""
_GRACE = 5.0
"""Seconds that workers get at the end to bring output and checkpoints to the store."""


class Crew:
    """All workers that have not been ended, those that leave among them."""

    def __init__(self, kit: Kit, url: str, nodes: Nodes, clock: Clock) -> None:
        self.members: list[Hired] = []
        self._kit, self._url, self._nodes, self._clock = kit, url, nodes, clock
        self._told = False

    @property
    def limit(self) -> int:
        """How many workers there may be on what there is: of a study that has only a share of the cluster, no more.

        By the ones that find no place an autoscaler sees what is needed; `_ask` hires some for it alone.
        """
        budget = self._kit.spec.budget
        if budget.concurrency is None or budget.share < 1:
            return self._nodes.slots
        return budget.concurrency

    def takers(self, shape: Shape) -> list[Hired]:
        """The workers of a shape that may be given tasks."""
        nodes = self._nodes
        return [
            worker
            for worker in self.members
            if worker.ready
            and worker.shape == shape
            and worker.nodes.isdisjoint(nodes.shunned)
            and worker.nodes.isdisjoint(nodes.leaving)
        ]

    def provide(self, wanted: Mapping[Shape, int]) -> None:
        """Hires workers for so many trials of each shape that wait, and dismisses those that none waits for."""
        staff = [worker for worker in self.members if not (worker.retired or worker.scout)]
        free: dict[Shape, list[Hired]] = {shape: [] for shape in wanted}
        for worker in sorted(staff, key=lambda worker: worker.starting):
            if not worker.tasks:
                free.setdefault(worker.shape, []).append(worker)
        for worker in [worker for workers in free.values() for worker in reversed(workers)][: self._beyond(staff)]:
            # Those that waited for a new node came up with it, and the node is not this study's alone.
            free[worker.shape].remove(worker)
            staff.remove(worker)
            self.dismiss(worker)
        missing = {shape: count - len(free[shape]) for shape, count in wanted.items() if count > len(free[shape])}
        spare = [worker for shape, workers in free.items() for worker in workers[wanted.get(shape, 0) :]]
        crowded = sum(missing.values()) + len(staff) - self.limit
        if any(self._finds_no_place(worker) for shape, count in wanted.items() for worker in free[shape][:count]):
            crowded = len(spare)
        for number, worker in enumerate(reversed(spare)):
            if number < crowded or worker.idle > _IDLE_SECONDS:
                self.dismiss(worker)
                staff.remove(worker)
        for shape, count in missing.items():
            hired = [self._hire(shape) for _ in range(min(count, self.limit - len(staff)))]
            staff += hired
            missing[shape] -= len(hired)
        self._ask(missing)

    def tend(self) -> None:
        """Moves, dismisses and ends workers whose time has come."""
        grace = self._kit.spec.execution.stop_grace
        open_again = set(self._nodes.present) - self._nodes.closed
        for worker in list(self.members):
            leaving = next((self._nodes.leaving[node] for node in worker.nodes if node in self._nodes.leaving), None)
            if not worker.torn and (gone := worker.gang & self._nodes.gone):
                worker.tears(min(gone), grace)
            if worker.starting and not worker.scout and worker.idle > _LONG and not self._told:
                self._told = True
                logger.warning(
                    "Ray has not started a worker for a minute: the cluster may be in use by others, or full"
                )
            if worker.starting and not worker.scout and not open_again.isdisjoint(worker.avoided):
                self.remove(worker)  # the next one may be put there
            elif worker.left_by is not None:
                if worker.left_by <= self._clock.now:
                    self.remove(worker)
            elif leaving is not None and worker.gone_by is None:
                worker.move(*leaving)
            elif not worker.tasks and (self._is_through(worker) or not worker.nodes.isdisjoint(self._nodes.shunned)):
                self.dismiss(worker)

    def failing(self) -> Iterator[tuple[Hired, str]]:
        """The workers that must be ended though they run a trial: `silent`, `torn`, or `unstopped`."""
        for worker in self.members:
            if worker.left_by is None and worker.silence >= self._kit.spec.execution.heartbeat:
                yield worker, "silent"
            elif worker.torn_by <= self._clock.now and worker.began is not None:
                yield worker, "torn"
            elif worker.overdue is not None:
                yield worker, "unstopped"

    def dismiss(self, worker: Hired) -> None:
        """Ends a worker after it has brought to the store what it still holds."""
        if worker.starting:
            self.remove(worker)
        elif worker.left_by is None:
            worker.leave()

    def remove(self, worker: Hired, ran: tuple[int, int] | None = None) -> None:
        """Ends a worker's process at once; `ran` is the trial and the attempt that its output belongs to."""
        self.members.remove(worker)
        worker.kill()
        claim(self._url, worker.name, *(ran or ()))

    def end(self, *, lost: bool) -> None:
        """Ends all workers; where their Ray is `lost`, without a word to them."""
        up = [] if lost else [worker for worker in self.members if not worker.starting]
        if up:
            import ray

            with contextlib.suppress(Exception):  # a Ray that is gone must not keep this from its end
                leaving = [worker.actor.leave.remote() for worker in up]
                ray.wait(leaving, num_returns=len(leaving), timeout=_GRACE)
        for worker in list(self.members):
            self.remove(worker)

    def _beyond(self, staff: list[Hired]) -> int:
        """How many workers there are above what this study may take."""
        return max(0, len(staff) - self.limit)

    def _ask(self, missing: Mapping[Shape, int]) -> None:
        """Has workers wait for nodes that an autoscaler may bring, for trials for which the cluster is too small.

        They take no place that is there: it may be another study's share. What autoscalers offer for this, to request
        resources, is one wish for a whole cluster, in which the last study would overrule the others.
        """
        room = self._nodes.ahead
        for shape, count in missing.items():
            scouts = [worker for worker in self.members if worker.scout and worker.shape == shape]
            wanted = min(count, room)
            room -= wanted
            scouts += [self._hire(shape, ahead=True) for _ in range(wanted - len(scouts))]
            for worker in scouts[:wanted]:
                worker.idle_since = self._clock.now
        for worker in [worker for worker in self.members if worker.scout and worker.idle > _IDLE_SECONDS]:
            self.remove(worker)

    def _hire(self, shape: Shape, *, ahead: bool = False) -> Hired:
        off = self._nodes.closed.union(self._nodes.present if ahead else ())
        worker = Hired(self._kit, shape, self._clock, off, ahead=ahead)
        self.members.append(worker)
        return worker

    @staticmethod
    def _finds_no_place(worker: Hired) -> bool:
        return worker.starting and worker.idle > _UNPLACED

    @staticmethod
    def _is_through(worker: Hired) -> bool:
        """Tells whether a worker that begins no more trials has kept its place for long enough."""
        return worker.retired and (worker.gone_by is None or worker.gone_by <= time.time())
