"""Plays a study from its first to its last step on imagined machines: everything but the training is real.

The steps, the driver, the sampler, the scheduler and the log are those of the engine; the log lies in the memory of
this process and goes with the simulation. This module must not touch the store that the spec names.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from tune_tasks.events import Created, Requested
from tune_tasks.execution.serving import JobDriver
from tune_tasks.simulate.model import Model
from tune_tasks.simulate.pool import HOUR, Pool
from tune_tasks.simulate.result import Play
from tune_tasks.simulate.runner import SimulatedRunner
from tune_tasks.spec import StudySpec
from tune_tasks.steps import evaluate_and_prune, launch_trials, make_decider, sample
from tune_tasks.store import Objects
from tune_tasks.store.aside import AtOnce
from tune_tasks.store.log import StudyLog
from tune_tasks.store.memory import MemoryObjects
from tune_tasks.studies import Study, append
from tune_tasks.study import StudyState
from tune_tasks.views import STATES

BETWEEN = 5.0
"""Seconds that an orchestrator takes from one launch step to the next."""

_numbers = itertools.count()


def play(
    spec: StudySpec, pool: Pool, model: Model, *, seed: int = 0, checkpoint_every: int = 1, between: float = BETWEEN
) -> Play:
    """Plays the study once. The same arguments give the same result."""
    with _objects() as objects:
        runner = SimulatedRunner(spec, pool, model, seed=seed, checkpoint_every=checkpoint_every)
        StudyLog(objects).create(Created(study="simulated", spec=spec.record(), folder=None, time=0.0))
        progress = _Progress(runner, pool)
        carries = spec.execution.runner == "job" and spec.execution.flow == "rounds"
        study = _opened(objects, spec, runner, log=StudyLog if carries else _Log)
        (_carried if carries else _in_steps)(study, runner, progress, between)
        wall = runner.now()
        runner.close()
        return _result(study.refresh(), runner, pool, wall, progress.rows)


class _Objects(MemoryObjects):
    """Holds the log of a study whose checkpoints are words only: there is none to look for when they are deleted."""

    def list(self, prefix: str) -> list[str]:
        return [] if prefix.startswith("ckpt/") else super().list(prefix)


class _Log(StudyLog):
    """A log with one writer, which nobody reads again: it needs no snapshots."""

    @property
    def snapshot_due(self) -> bool:
        return False


class _Progress:
    """Notes each new best value with its time and the cost until then."""

    def __init__(self, runner: SimulatedRunner, pool: Pool) -> None:
        self._runner, self._price = runner, pool.price
        self.rows: list[tuple[float, float, float]] = []

    def __call__(self, state: StudyState) -> None:
        best = state.best
        if best is not None and best.value is not None and (not self.rows or self.rows[-1][2] != best.value):
            cost = self._runner.nodes.paid / HOUR * self._price
            self.rows.append((self._runner.now(), cost, best.value))


@contextmanager
def _objects() -> Iterator[MemoryObjects]:
    objects = _Objects(f"simulated-{next(_numbers)}")
    try:
        yield objects
    finally:
        for key in objects.list(""):
            objects.delete(key)


def _opened(objects: Objects, spec: StudySpec, runner: SimulatedRunner, log: type[StudyLog]) -> Study:
    study = Study(objects, spec)
    study.log, study.clock = log(objects, aside=AtOnce()), runner.now
    study.keep(study.log.load())
    return study


def _in_steps(study: Study, runner: SimulatedRunner, progress: _Progress, between: float) -> None:
    """Each launch step drives its batch itself, to a barrier."""
    while True:
        batch = sample(study)
        launch_trials(study, batch, runner=runner, on_change=progress)
        if evaluate_and_prune(study, batch).done:
            return
        runner.rest(between)


def _carried(study: Study, runner: SimulatedRunner, progress: _Progress, between: float) -> None:
    """One job serves all launch steps, and what runs goes on while the orchestrator decides what comes next."""
    pipeline = _Pipeline(_opened(study.objects, study.spec, runner, StudyLog), runner, between)
    pipeline.ask()

    def on_change(state: StudyState) -> None:
        progress(state)
        pipeline.look(state)

    decider = make_decider(study)
    JobDriver(study.log, study.refresh(), runner, decider, owner="job", on_change=on_change, clock=runner.now).serve()
    study.distrust()


class _Pipeline:
    """The orchestrator beside the job: when a launch step has ended, it evaluates, samples and launches again."""

    def __init__(self, study: Study, runner: SimulatedRunner, between: float) -> None:
        self._study, self._runner, self._between = study, runner, between
        self._asked = ""

    def ask(self) -> None:
        """Samples a batch and asks the job for it."""
        batch = sample(self._study).id
        append(self._study, lambda _: Requested(batch=batch, job=1, time=self._study.now()))
        self._asked = f"{batch}/launch"

    def look(self, state: StudyState) -> None:
        """Goes on, after a while, where the step that was asked for has ended."""
        if self._asked in state.steps:
            batch, self._asked = self._asked.removesuffix("/launch"), ""
            self._runner.agenda.at(self._runner.now() + self._between, lambda: self._go_on(batch))

    def _go_on(self, batch: str) -> None:
        if not evaluate_and_prune(self._study, batch).done:
            self.ask()


def _result(
    state: StudyState, runner: SimulatedRunner, pool: Pool, wall: float, progress: list[tuple[float, float, float]]
) -> Play:
    usage, tally, nodes = runner.usage, runner.tally, runner.nodes
    best = state.best
    return Play(
        pool=pool,
        wall_time=wall,
        node_hours=nodes.paid / HOUR,
        paid_time=nodes.paid * pool.slots,
        start_up_time=nodes.starting * pool.slots,
        busy_time=tally.worked,
        idle_time=usage.up - usage.busy,
        wasted_time=tally.wasted,
        steps=tally.steps,
        repeated=tally.repeated,
        preemptions=nodes.preemptions,
        lost=tally.lost,
        moved=tally.moved,
        trials={name: state.count(name) for name in STATES},
        best=best.value if best else None,
        reason=state.reason,
        usage=usage.line(wall),
        progress=progress,
    )
