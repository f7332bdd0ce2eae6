"""A world of processes that share one study on one store: pipelines, readers, and what goes wrong between them.

One seed draws everything in it; who moves next, and what fails, is up to whoever plays it: a seed, or hypothesis.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import tune_tasks as tt
from tests.simulation import study as whole
from tests.simulation.checker import Checker, Violation, demand
from tests.simulation.determined import determined
from tests.simulation.runner import ScriptedRunner
from tests.simulation.stage import Actor
from tests.simulation.vandal import wound
from tune_tasks.errors import Fenced, NothingToPromote, Unavailable
from tune_tasks.steps import BatchOutcome, Verdict, _batch
from tune_tasks.store import Objects, StudyLog
from tune_tasks.study import StudyState
from tune_tasks.testing.faults import Call, Crash, Fault, FaultyObjects, SharedObjects

ENOUGH = 20_000
"""Calls after which a study that has not ended never will."""
TRIES = 3
"""How often a process tries a step again that the store failed, before it gives up."""


class World:
    """See `world`, which makes it."""

    def __init__(self, seed: int, clock: Any, file: Path) -> None:
        self.seed, self.clock, self.file, self.random = seed, clock, file, Random(f"world {seed}")
        self.shared = SharedObjects(self._plan, lag=lambda: self.random.randint(1, 30), turn=self._turn)
        self.checker = Checker(self.shared, views=True)
        self.spec = whole.spec(
            budget={"trials": 4, "concurrency": 2},
            execution={"flow": self.random.choice(["rounds", "streaming"]), "batch": 3, "group_rows": 2},
            checkpoints={"keep_last": 1, "keep_best": 1},
        )
        self.fault: Callable[[Call], Fault | None] = lambda _: None
        self.actors: list[Actor] = []
        self.handles: dict[str, FaultyObjects] = {}
        self.acknowledged: list[tuple[int, tuple[Any, ...]]] = []
        self.results: list[tuple[str, Any]] = []
        self.promoted: dict[str, Any] = {}
        self._now: Actor | None = None
        self._calls = 0
        self._objects: dict[str, Objects] = {}

    @property
    def alive(self) -> list[Actor]:
        return [actor for actor in self.actors if not actor.over]

    def pipeline(self, run: str = "main", *, patient: bool = False) -> Actor:
        """A process that runs the steps of a pipeline run until the study is done, and promotes."""
        return self._enter(f"{run}", patient, self._pipeline, run)

    def reader(self) -> Actor:
        """A process that looks at the study again and again, and writes a snapshot now and then."""
        return self._enter("reader", False, self._read)

    def amend(self) -> None:
        """From now on whoever opens the study wants one trial more."""
        budget = self.spec.budget
        self.spec = self.spec.model_copy(update={"budget": budget.model_copy(update={"trials": budget.trials + 1})})

    def move(self, actor: Actor, calls: int = 1) -> None:
        """Lets an actor make its next calls; raises where that shows that a promise was broken."""
        self._now, self._calls = actor, calls
        actor.move()
        self._now = None
        demand("end", kept=self.shared.calls < ENOUGH, why="nothing fails any more, but the study does not end")
        self.checker.follow()
        if actor.over and not isinstance(actor.error, Crash | Fenced | Unavailable | None):
            raise actor.error

    def finish(self) -> None:
        """Lets everyone come to his end without further faults, one more process see the study through, and checks."""
        self.fault = lambda _: None
        while self.alive:
            self.move(self.random.choice(self.alive), calls=5)
        last = self.pipeline("last")
        while not last.over:
            self.move(last, calls=1_000)
        if last.error is not None:
            raise last.error
        self.check()

    def check(self) -> None:
        self.checker.finish()
        self.checker.acknowledged(self.acknowledged)
        for key, result in self.results:
            said = self.checker.state.steps.get(key)
            demand("I2", kept=said is not None and type_of(key)(said) == result, why=f"{key}: {result}, now {said}")
        state = self.checker.state
        trials = len(state.trials) == state.spec.budget.trials
        demand("I5", kept=state.done and trials, why=f"{len(state.trials)} trials, done {state.done}")
        wound(self.shared, self.checker, self.random, self.log)

    def close(self) -> None:
        """Ends the threads of whoever is still there."""
        for actor in self.alive:
            self.handles[actor.name].dead = True
        while self.alive:
            self.alive[0].move()

    def log(self, objects: Objects) -> StudyLog:
        """A log as a process opens one here; a twin may be another."""
        return tt.studies.StudyLog(objects)  # type: ignore[attr-defined]

    def _enter(self, name: str, patient: bool, work: Callable[..., None], *given: Any) -> Actor:
        name = f"{name} {len(self.actors)}"
        self.handles[name] = self.shared.process(name)
        self._objects[name] = whole.patient(self.handles[name], self.clock) if patient else self.handles[name]
        actor = Actor(name, lambda: work(name, *given))
        self.actors.append(actor)
        return actor

    def _plan(self, call: Call) -> Fault | None:
        return self.fault(call)

    def _turn(self, call: Call) -> None:
        if self._now is not None:
            if self._calls == 0:
                self._now.wait()
            self._calls -= 1
            self.checker.follow()
            self.checker.before(call)

    def open_objects(self, url: str) -> Objects:
        assert self._now is not None
        return whole.opened(self._objects[self._now.name], url)

    def _pipeline(self, name: str, run: str) -> None:
        study = self._insist(lambda: tt.open_study(self.spec, amend=True))
        while not self._insist(study.refresh).done:
            self._round(study, name, run)
        if self.seed % 4 == 0:
            self._promote(study, run)

    def _round(self, study: tt.Study, name: str, run: str) -> None:
        batch = self._insist(lambda: tt.sample(study, run=run))
        self._told(study, f"{batch.id}/sample", batch)
        outcome = self._insist(lambda: tt.launch_trials(study, batch, runner=self._runner(name)))
        self._told(study, f"{batch.id}/launch", outcome)
        verdict = self._insist(lambda: tt.evaluate_and_prune(study, batch))
        self._told(study, f"{batch.id}/evaluate", verdict)

    def _promote(self, study: tt.Study, run: str) -> None:
        try:
            model = self._insist(lambda: tt.promote_best(study, run=run))
        except NothingToPromote:
            return
        before = self.promoted.setdefault(model.key, model)
        demand("I2", kept=before == model, why=f"{model.key} gave {before} and {model}")
        self._view(study.log, study.state)

    def _runner(self, name: str) -> ScriptedRunner:
        return ScriptedRunner(self._objects[name], self.random, self.file)

    def _told(self, study: tt.Study, key: str, result: Any) -> None:
        if key in study.state.steps:  # else it is the empty batch of a study that is done
            self.results.append((key, result))
        self._view(study.log, study.state)

    def _view(self, log: StudyLog, state: StudyState) -> None:
        self.checker.follow()
        self.checker.view(log.head, state)

    def _insist(self, step: Callable[[], Any]) -> Any:
        """Does a step as an orchestrator does: again where that may help, also after someone took the study over."""
        failure: Exception | None = None
        for _ in range(TRIES):
            try:
                return step()
            except (Unavailable, Fenced) as error:
                failure = error
                if isinstance(error, Fenced) and self.random.random() < 0.7:
                    break
        assert failure is not None
        raise failure

    def _read(self, name: str) -> None:
        log = self.log(self._objects[name])
        for _ in range(self.random.randint(1, 6)):
            try:
                state = log.load()
                self._view(log, state)
                for _ in range(self.random.randint(0, 3)):
                    log.catch_up(state)
                    self._view(log, state)
                if self.random.random() < 0.3:
                    log.snapshot(state)
            except (Unavailable, tt.StudyNotFound):
                continue


def type_of(key: str) -> Callable[[dict[str, Any]], Any]:
    """What a step makes of the result that the log has for its key."""
    match key.rpartition("/")[2]:
        case "sample":
            return _batch
        case "launch":
            return lambda said: BatchOutcome(**said)
        case _:
            return lambda said: Verdict(**said)


@cache
def _weights() -> Path:
    """What every checkpoint here holds: one file for as long as this process lives."""
    folder = Path(tempfile.mkdtemp(prefix="tune-tasks-simulation-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "weights.txt").write_text("0.5")
    return folder / "weights.txt"


@contextmanager
def world(seed: int, *, log: type[StudyLog] = whole.Acknowledging, every: int = 4) -> Iterator[World]:
    """A new world, whose processes find it wherever the engine opens a store; `log` may be a broken twin."""
    with ExitStack() as stack:
        clock = stack.enter_context(determined(seed))
        made = World(seed, clock, _weights())
        kind = type("Log", (log,), {"acknowledged": made.acknowledged})
        for module in whole.OPENERS:
            stack.enter_context(patch(f"tune_tasks.{module}.open_objects", made.open_objects))
        stack.enter_context(patch("tune_tasks.studies.StudyLog", kind))
        stack.enter_context(patch("tune_tasks.store.log.SNAPSHOT_EVERY", every))
        try:
            yield made
        finally:
            made.close()


__all__ = ["Violation", "World", "world"]
