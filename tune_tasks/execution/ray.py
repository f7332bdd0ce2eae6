"""Runs trials on a Ray cluster, on workers that stay warm from one trial to the next.

Each worker has a few tasks ahead where trials are short, and one call outstanding that brings its messages in groups,
so that what Ray costs for a call is shared by many trials. This module must not restart a trial: what a lost worker
ran is reported as lost, and what it had not begun is given back.
"""

from __future__ import annotations

import contextlib
import functools
import math
import pickle
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from tune_tasks.errors import ConfigError, TuneError
from tune_tasks.execution import Began, Message, Over, Returned, TrialTask, cluster
from tune_tasks.execution.attempt import Workload
from tune_tasks.execution.output import claim
from tune_tasks.execution.worker import Worker
from tune_tasks.spec import StudySpec

_SHORT = 0.1
"""Seconds. Longer trials are not handed ahead: the next one would be sampled without the results of this one."""
_AHEAD = 0.05
"""Seconds of work that a worker has ahead where trials are short: a turn of the driver, with a commit to disk."""
_MOST_AHEAD = 256
_STUCK = 0.25
"""Seconds after which tasks behind a running trial are called back, for other workers."""
_ERROR_CHARACTERS = 2_000
_GRACE = 5.0
"""Seconds that workers get at the end to bring output and checkpoints to the store."""


class RayRunner:
    """Workers of one resource shape, made as tasks come and replaced when they are lost."""

    def __init__(
        self,
        url: str,
        spec: StudySpec,
        objective: Any,
        folder: str | None = None,
        *,
        max_budget: int | None = None,
        address: str | None = None,
    ) -> None:
        """`address`: of the Ray cluster, in place of the one in the spec."""
        if url.startswith("memory:"):
            raise ConfigError(f"store: {url!r} lives in one process; use another store, or execution.runner: inline")
        self._workload = Workload.of(url, spec, objective, folder, max_budget)
        self._spec, self._isolated = spec, spec.execution.isolation == "process"
        self._deliver: Callable[[Message], None] = lambda _: None
        self._address = address or spec.execution.address
        self._attached = False
        self._slots = 0
        self._shared: Any = None
        self._workers: list[_Remote] = []
        self._at: dict[int, _Remote] = {}
        self._pace = _Pace()

    @property
    def slots(self) -> int:
        """How many trials run at once; 0 before `open`."""
        return self._slots

    def open(self, deliver: Callable[[Message], None]) -> None:
        """Attaches to Ray, and starts one where there is none. Opened again, it keeps its idle workers warm.

        Raises `ConfigError` where no node can hold a trial, `Unavailable` where no Ray answers.
        """
        import ray

        self._deliver = deliver
        if self._shared is None:
            self._attached = cluster.attach(self._address)
            self._slots = cluster.slots(self._spec.resources, self._spec.budget.concurrency)
            self._shared = ray.put(self._portable())
        for worker in [worker for worker in self._workers if worker.tasks]:
            self._remove(worker)

    def room(self, waiting: int) -> int:
        """One task for each idle or missing worker, and more where trials are short."""
        depth = 0 if self._isolated else self._pace.depth
        free = (1 + (0 if worker.age > _SHORT else depth) - len(worker.tasks) for worker in self._workers)
        return sum(max(0, count) for count in free) + (self._slots - len(self._workers)) * (1 + depth)

    def submit(self, tasks: Sequence[TrialTask]) -> None:
        """Gives each task to the worker with the fewest; makes workers while there are too few."""
        orders: dict[_Remote, list[TrialTask]] = {}
        for task in tasks:
            worker = min(self._workers, key=lambda worker: len(worker.tasks), default=None)
            if (worker is None or worker.tasks) and len(self._workers) < self._slots:
                worker = self._hire()
            if worker is None:
                raise TuneError("the runner is not open")
            worker.tasks[task.trial] = task
            self._at[task.trial] = worker
            orders.setdefault(worker, []).append(task)
        for worker, mine in orders.items():
            worker.order(mine)

    def wait(self, timeout: float) -> None:
        """Delivers what has happened. Raises `TuneError` where a worker cannot run any trial."""
        import ray

        for worker in self._workers:
            if len(worker.tasks) > 1 and worker.age > _STUCK:
                worker.recall()
        calls = {worker.call: worker for worker in self._workers}
        if not calls:
            time.sleep(timeout)
            return
        ready, rest = ray.wait(list(calls), timeout=timeout)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for worker, messages in [(calls[call], self._fetch(calls[call])) for call in ready]:
            for message in messages:
                self._note(worker, message)
                self._deliver(message)

    def stop(self, trial: int, *, pause: bool) -> None:
        """Passes the request on to the trial's worker, if it has one."""
        worker = self._at.get(trial)
        if worker is not None:
            worker.actor.stop.remote(trial, worker.tasks[trial].attempt, pause)

    def avoid(self, nodes: Collection[str]) -> None:
        """Makes no more workers on these nodes."""

    def close(self) -> None:
        """Ends the workers, and the Ray that was started here."""
        self._dismiss(list(self._workers))
        self._shared, self._slots = None, 0
        if self._attached:
            cluster.detach()
            self._attached = False

    def _portable(self) -> Workload:
        """The workload with a Python objective as a pickle: loading it can then fail the trial, not the worker."""
        from ray import cloudpickle

        objective = self._workload.objective
        if isinstance(objective, str):
            return self._workload
        try:
            return replace(self._workload, objective=cloudpickle.dumps(objective))  # type: ignore[no-untyped-call]
        except Exception as error:
            raise ConfigError(
                f"objective: {objective!r} cannot be sent to the workers: {type(error).__name__}: {error}; "
                "put it into a module and name it by an import string"
            ) from error

    def _hire(self) -> _Remote:
        worker = _Remote(self._spec, self._shared)
        self._workers.append(worker)
        return worker

    def _dismiss(self, workers: list[_Remote]) -> None:
        """Ends workers after they have brought to the store what they still hold."""
        if not workers:
            return
        import ray

        with contextlib.suppress(Exception):  # a Ray that is gone must not keep `close` from its end
            leaving = [worker.actor.leave.remote() for worker in workers]
            ray.wait(leaving, num_returns=len(leaving), timeout=_GRACE)
        for worker in workers:
            self._remove(worker)

    def _remove(self, worker: _Remote, ran: TrialTask | None = None) -> None:
        """Ends a worker's process, whatever runs in it, and lets go of its tasks."""
        import ray

        self._workers.remove(worker)
        for trial in worker.tasks:
            self._at.pop(trial, None)
        with contextlib.suppress(Exception):  # it may be gone already
            ray.kill(worker.actor)
        claim(self._workload.url, worker.name, *(ran[:2] if ran else ()))

    def _fetch(self, worker: _Remote) -> list[Message]:
        """What a worker has to say; of one that is gone, what became of its tasks."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            messages: list[Message] = pickle.loads(ray.get(worker.call))  # noqa: S301  # from our own worker
        except RayTaskError as error:
            raise TuneError(f"a worker cannot run trials: {error.cause}") from error
        except RayError as error:
            if "creation task" in str(error):
                raise TuneError(f"a worker could not start: {error}") from error
            return self._lost(worker, error)
        worker.call = worker.actor.fetch.remote()
        return messages

    def _lost(self, worker: _Remote, error: Exception) -> list[Message]:
        """The first task is lost with the worker, even where nothing was heard of it yet: it may be what killed it."""
        tasks = list(worker.tasks.values())
        self._remove(worker, *tasks[:1])
        messages: list[Message] = [Returned(task.trial, task.attempt) for task in tasks[1:]]
        for first in tasks[:1]:
            now = time.time()
            if worker.began is None:
                step = first.checkpoint[0] if first.checkpoint else 0
                messages.append(Began(first.trial, first.attempt, step, "unknown", now))
            text = f"the worker was lost: {type(error).__name__}: {error}"[:_ERROR_CHARACTERS]
            messages.append(Over(first.trial, first.attempt, "lost", text, type(error).__name__, now))
        return messages

    def _note(self, worker: _Remote, message: Message) -> None:
        match message:
            case Began():
                worker.began, worker.seen = message, time.monotonic()
            case Over():
                if worker.began is not None and message.outcome != "lost":
                    self._pace.add(message.time - worker.began.time)
                self._forget(worker, message.trial)
                worker.began = None
                if self._isolated and worker in self._workers:
                    self._dismiss([worker])
            case Returned():
                self._forget(worker, message.trial)

    def _forget(self, worker: _Remote, trial: int) -> None:
        worker.tasks.pop(trial, None)
        if self._at.get(trial) is worker:
            del self._at[trial]


class _Remote:
    """One worker, as the driver sees it."""

    def __init__(self, spec: StudySpec, workload: Any) -> None:
        self.name = uuid.uuid4().hex
        self.actor = _actor_class().options(**_options(spec)).remote(self.name, workload)
        self.tasks: dict[int, TrialTask] = {}
        self.began: Began | None = None
        self.seen = 0.0
        self.recalled = False
        self.call = self.actor.fetch.remote()

    @property
    def age(self) -> float:
        """Seconds since its running trial began; 0 where none runs."""
        return time.monotonic() - self.seen if self.began is not None else 0.0

    def order(self, tasks: list[TrialTask]) -> None:
        """Hands tasks over; asks to be told when half of those that it has then are left."""
        self.recalled = False
        self.actor.order.remote(pickle.dumps(tasks, protocol=5), len(self.tasks) // 2)

    def recall(self) -> None:
        """Asks for the tasks that have not begun, once."""
        if not self.recalled:
            self.recalled = True
            self.actor.recall.remote()


class _Pace:
    """How long trials take, of late."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque([2 * _SHORT], maxlen=32)

    def add(self, seconds: float) -> None:
        """Notes how long a trial took."""
        self._recent.append(max(seconds, 1e-6))

    @property
    def depth(self) -> int:
        """How many tasks a worker should have beside the one that it runs; none where trials are not short."""
        mean = sum(self._recent) / len(self._recent)
        return min(_MOST_AHEAD, math.ceil(_AHEAD / mean)) if mean <= _SHORT else 0


def _options(spec: StudySpec) -> dict[str, Any]:
    """What each worker occupies. Never restarted by Ray: what to run again is for the log to decide."""
    resources = spec.resources
    options: dict[str, Any] = {"num_cpus": resources.cpu, "num_gpus": resources.gpu, "resources": resources.custom}
    if resources.memory is not None:
        options["memory"] = resources.memory
    return {**options, "max_restarts": 0, "max_task_retries": 0}


@functools.cache
def _actor_class() -> Any:
    """The worker as Ray's actor: orders are carried out in their order, while another thread waits for messages."""
    import ray

    for name in ("order", "stop", "recall", "leave"):
        ray.method(concurrency_group="orders")(getattr(Worker, name))
    ray.method(concurrency_group="messages")(Worker.fetch)
    remote: Any = ray.remote  # its types do not know concurrency groups
    return remote(concurrency_groups={"orders": 1, "messages": 1})(Worker)
