"""Runs trials on a Ray cluster, on workers that stay warm from one trial to the next.

Each worker has a few tasks ahead where trials are short, and one call outstanding that brings its messages in groups,
so that what Ray costs for a call is shared by many trials. This module must not restart a trial: what a lost worker
ran is reported as lost, and what it had not begun is given back.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tune_tasks.errors import ConfigError, TuneError, Unavailable
from tune_tasks.execution import Began, Message, Over, Returned, Row, TrialTask, environment, losses
from tune_tasks.execution.attempt import Workload, describe
from tune_tasks.execution.hired import Clock, Hired
from tune_tasks.execution.pace import SHORT, Pace
from tune_tasks.execution.placement import Shape, Shapes
from tune_tasks.execution.site import Site
from tune_tasks.execution.worker import Noticed, Ready, Swollen, Torn, Word
from tune_tasks.spec import StudySpec

logger = logging.getLogger(__name__)

_STUCK = 0.25
"""Seconds after which tasks behind a running trial are called back, for other workers."""
_OUT_OF_TURN = 2.0
"""Seconds for which a trial that finds no place lets later ones of other shapes go first."""
_STILLBORN = 20
"""Workers that end before they are up, one after the other, until the cluster is taken for broken."""


class _Queued(NamedTuple):
    """A task that no worker has yet, since a moment of the runner's clock."""

    task: TrialTask
    shape: Shape
    since: float


class RayRunner:
    """Workers that are hired as trials come, pooled by what they occupy, and replaced when they are lost."""

    def __init__(
        self,
        url: str,
        spec: StudySpec,
        objective: Any,
        folder: str | None = None,
        *,
        max_budget: int | None = None,
        address: str | None = None,
        loaders: Mapping[str, Any] | None = None,
    ) -> None:
        """`address`: of the Ray cluster, in place of the one in the spec; `loaders`: of the inputs, likewise."""
        if url.startswith("memory:"):
            raise ConfigError(f"store: {url!r} lives in one process; use another store, or execution.runner: inline")
        self._workload = Workload.of(url, spec, objective, folder, max_budget)
        self._spec, self._isolated = spec, spec.execution.isolation == "process"
        self._loaders = spec.loaders if loaders is None else loaders
        self._address = address or spec.execution.address
        self._shapes = Shapes(spec.resources, folder)
        self._deliver: Callable[[Message], None] = lambda _: None
        self._site: Site | None = None
        self._clock, self._pace = Clock(), Pace()
        self._queue: dict[int, _Queued] = {}
        self._at: dict[int, Hired] = {}
        self._outbox: deque[Message] = deque()
        self._waiting = 0
        self._stillborn = 0

    @property
    def slots(self) -> int:
        """How many trials run at once, by the size of the cluster a few seconds ago; 0 before `open`."""
        return self._site.nodes.slots if self._site is not None else 0

    def open(self, deliver: Callable[[Message], None]) -> None:
        """Attaches to Ray, and starts one where there is none. Opened again, it keeps its idle workers warm.

        Raises `ConfigError` where no node can hold a trial, or an input cannot be loaded, and `Unavailable` where no
        Ray answers.
        """
        self._deliver = deliver
        if self._site is None:
            self._site = Site.open(
                self._spec,
                self._workload,
                self._shapes.default,
                self._clock,
                address=self._address,
                loaders=self._loaders,
            )
        for worker in [worker for worker in self._site.crew.members if worker.tasks]:
            self._site.crew.remove(worker)
        for left in (self._queue, self._at, self._outbox):
            left.clear()
        self._waiting = 0

    def room(self, waiting: int) -> int:
        """One task for each worker that is up and idle, and more where trials are short."""
        self._waiting = waiting
        if self._shapes.vary:  # which workers they need is known when they are here
            return max(0, self._here.crew.limit - len(self._at) - len(self._queue))
        depth = 0 if self._isolated else self._pace.depth
        takers = self._here.crew.takers(self._shapes.default)
        return sum(max(0, 1 + (0 if worker.age > SHORT else depth) - len(worker.tasks)) for worker in takers)

    def submit(self, tasks: Sequence[TrialTask]) -> None:
        """Gives each task to the worker with the fewest; where none is up, it waits here."""
        self._waiting = max(0, self._waiting - len(tasks))
        for task in tasks:
            try:
                shape = self._shapes.of(task.config)
                if self._shapes.vary:
                    self._here.nodes.check(shape)
            except Exception as error:  # noqa: BLE001  # of the user's function, for this configuration
                self._outbox += _failed(task, error)
            else:
                self._queue[task.trial] = _Queued(task, shape, self._clock.now)
        self._assign()

    def wait(self, timeout: float) -> None:
        """Delivers what has happened.

        Raises `TuneError` where a worker cannot run any trial, and `Unavailable` where the cluster is gone.
        """
        crew = self._here.crew
        self._clock.tick()
        self._survey()
        crew.provide(self._wanted())
        self._assign()
        for worker, words in self._listen(0.0 if self._outbox else timeout):
            for word in words:
                self._hear(worker, word)
        for worker, text in list(crew.failing()):
            for word in self._given_up(worker, text):
                self._hear(worker, word)
        crew.tend()
        while self._outbox:
            self._deliver(self._outbox.popleft())

    def stop(self, trial: int, *, pause: bool) -> None:
        """Passes the request on to the trial's worker, which is replaced where it does not stop in time."""
        queued, worker = self._queue.pop(trial, None), self._at.get(trial)
        if queued is not None:
            self._outbox.append(Returned(trial, queued.task.attempt))
        elif worker is not None:
            worker.stop(trial, None if pause else self._spec.execution.stop_grace)

    def avoid(self, nodes: Collection[str]) -> None:
        """Begins no more trials on these nodes, as long as there are others."""
        self._here.nodes.avoid(nodes)

    def close(self) -> None:
        """Ends the workers, and the Ray that was started here."""
        site, self._site = self._site, None
        if site is not None:
            site.close()

    @property
    def _here(self) -> Site:
        if self._site is None:
            raise TuneError("the runner is not open")
        return self._site

    def _survey(self) -> None:
        """Takes over what was seen of the cluster."""
        sight = self._here.lookout.sight
        if sight.lost is not None:
            raise Unavailable(sight.lost)
        self._here.nodes.see(sight)

    def _in_turn(self) -> Iterator[_Queued]:
        """The tasks that no worker has, up to the first that has waited for too long: it must not starve."""
        for queued in list(self._queue.values()):
            yield queued
            if self._shapes.vary and self._clock.now - queued.since > _OUT_OF_TURN:
                return

    def _wanted(self) -> dict[Shape, int]:
        """How many workers of each shape could be given something to do."""
        wanted = {} if self._shapes.vary else {self._shapes.default: self._waiting}
        for queued in self._in_turn():
            wanted[queued.shape] = wanted.get(queued.shape, 0) + 1
        return wanted

    def _assign(self) -> None:
        takers: dict[Shape, list[Hired]] = {}
        orders: dict[Hired, list[TrialTask]] = {}
        for task, shape, _ in self._in_turn():
            if shape not in takers:
                takers[shape] = self._here.crew.takers(shape)
            worker = min(takers[shape], key=lambda worker: len(worker.tasks), default=None)
            if worker is None or (worker.tasks and self._shapes.vary):
                continue
            del self._queue[task.trial]
            worker.tasks[task.trial] = task
            self._at[task.trial] = worker
            orders.setdefault(worker, []).append(task)
        for worker, mine in orders.items():
            worker.order(mine)

    def _listen(self, timeout: float) -> list[tuple[Hired, list[Word]]]:
        """What the workers have to say, or has become of them; waits for the first."""
        import ray

        members = self._here.crew.members
        for worker in members:
            if len(worker.tasks) > 1 and worker.age > _STUCK:
                worker.recall()
        calls = {worker.call: worker for worker in members}
        if not calls:
            time.sleep(timeout)
            return []
        ready, rest = ray.wait(list(calls), timeout=timeout)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return [(calls[call], self._fetch(calls[call])) for call in ready]

    def _fetch(self, worker: Hired) -> list[Word]:
        """What a worker has to say; of one that is gone, what became of its tasks."""
        import ray
        from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError

        try:
            answer = ray.get(worker.call)
        except RayTaskError as error:
            raise TuneError(f"a worker cannot run trials: {error.cause}") from error
        except RuntimeEnvSetupError as error:
            raise environment.refused(error) from error
        except RayError as error:
            if "creation task" in str(error):
                raise TuneError(f"a worker could not start: {error}") from error
            return self._lost(worker, error)
        if worker.left_by is not None:
            self._here.crew.remove(worker)
            return []
        words: list[Word] = pickle.loads(answer)  # noqa: S301  # from our own worker
        worker.listen()
        return words

    def _lost(self, worker: Hired, error: Exception) -> list[Word]:
        """What became of the tasks of a worker that Ray says is gone."""
        from ray.exceptions import ActorUnavailableError

        if worker.starting:
            self._stillborn += 1
            if self._stillborn >= _STILLBORN:
                text = f"{self._stillborn} workers ended before they were up; the last: {error}"
                raise Unavailable(text + losses.unborn(error)) from error
        if isinstance(error, ActorUnavailableError):
            self._here.nodes.doubt(worker.nodes)
        notice = self._here.nodes.leaving.get(worker.node)
        text = losses.lost(worker.node, losses.why(error, notice.why if notice else None))
        return self._ended(worker, "lost", text, type(error).__name__)

    def _given_up(self, worker: Hired, how: str) -> list[Word]:
        """Ends a worker that answers no more, or whose trial does not stop."""
        if how == "silent":
            self._here.nodes.doubt(worker.nodes)
            text = losses.lost(worker.node, losses.silent(worker.silence))
            return self._ended(worker, "lost", text, None)
        if how == "torn":
            return self._ended(worker, "lost", losses.torn(worker.torn), None, worker.torn)
        return self._ended(worker, "stopped", losses.unstopped(self._spec.execution.stop_grace), None)

    def _ended(self, worker: Hired, outcome: str, text: str, kind: str | None, node: str = "") -> list[Word]:
        """The first task ends with the worker, even where nothing was heard of it yet: it may be what killed it."""
        tasks = list(worker.tasks.values())
        self._here.crew.remove(worker, tasks[0][:2] if tasks else None)
        words: list[Word] = [Returned(task.trial, task.attempt) for task in tasks[1:]]
        for first in tasks[:1]:
            if worker.began is None:
                words.append(_began(first, worker.node))
            words.append(Over(first.trial, first.attempt, outcome, text, kind, time.time(), node))
        return words

    def _hear(self, worker: Hired, word: Word) -> None:
        """Notes what a worker says; passes on what it says of a trial."""
        match word:
            case Row():
                pass
            case Ready(node, gang):
                worker.node, worker.gang, self._stillborn = node, frozenset(gang), 0
                return
            case Noticed(why, deadline):
                if worker.gone_by is None:  # else it was told so, of this node or of another one of its gang
                    self._here.nodes.notice(worker.node, why, deadline)
                return
            case Torn():
                worker.retired = True
                return
            case Swollen(before, after):
                worker.retired = True
                sizes = {"before": before, "after": after, "worker": worker.name}
                logger.info("a worker is replaced, as its trials left memory behind", extra=sizes)
                return
            case Began():
                word = word._replace(node=worker.node)
                worker.begins(word)
            case Over(trial):
                self._close(worker, word)
            case Returned(trial):
                self._forget(worker, trial)
        self._deliver(word)

    def _close(self, worker: Hired, over: Over) -> None:
        if worker.began is not None and over.outcome != "lost":
            self._pace.add(over.time - worker.began.time)
        self._forget(worker, over.trial)
        worker.began = None
        if self._isolated and worker in self._here.crew.members:
            self._here.crew.dismiss(worker)

    def _forget(self, worker: Hired, trial: int) -> None:
        worker.forget(trial)
        if self._at.get(trial) is worker:
            del self._at[trial]


def _began(task: TrialTask, node: str) -> Began:
    """The beginning of an attempt whose worker did not get to say so."""
    step = task.checkpoint[0] if task.checkpoint else 0
    return Began(task.trial, task.attempt, step, "unknown", time.time(), node)


def _failed(task: TrialTask, error: Exception) -> list[Message]:
    """An attempt that ends before it has a worker."""
    over = Over(task.trial, task.attempt, "failed", describe(error), type(error).__name__, time.time())
    return [_began(task, "")._replace(worker="the driver"), over]
