"""The simulation catches what it is for: an engine that breaks a promise is found out within a few seeds."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import SystemRandom
from typing import Any

import pytest

from tests.simulation import study as whole
from tests.simulation.checker import Violation
from tests.simulation.play import fingerprint, play
from tests.simulation.world import world
from tune_tasks import retention, studies
from tune_tasks.errors import ConfigError, TuneError, Unavailable
from tune_tasks.events import Opened
from tune_tasks.execution.driver import Driver
from tune_tasks.store import checkpoints, probe, snapshots
from tune_tasks.store.snapshot import decode
from tune_tasks.study import StudyState
from tune_tasks.testing.faults import SharedObjects

SEEDS = 60


def forgetful_store(patch: pytest.MonkeyPatch) -> None:
    """Takes the condition and ignores it, as several servers do."""

    def put(self: SharedObjects, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True

    patch.setattr(SharedObjects, "put_if_absent", put)
    patch.setattr(studies, "probe", lambda objects: None)  # it refuses such a store, see below


def trusting_snapshots(patch: pytest.MonkeyPatch) -> None:
    """Takes a snapshot for what its name says."""
    patch.setattr(snapshots, "_verified", lambda data, key, digest: decode(data))


class TrustsTheHint(whole.Acknowledging):
    """Takes what the hint names for a snapshot of this log."""

    def _resume(self) -> Any:
        return next(snapshots.newest(self.objects), super()._resume())


class ReportsLosses(whole.Acknowledging):
    """Says of its own write that someone else was first, where the reply was unclear."""

    def _landed(self, key: str, data: bytes) -> bool:
        try:
            return self.objects.create(key, data)
        except Unavailable:
            return False


class HopesForTheBest(whole.Acknowledging):
    """Says that what it wrote is there, where the reply was unclear."""

    def _landed(self, key: str, data: bytes) -> bool:
        try:
            return self.objects.create(key, data)
        except Unavailable:
            return True


class SkipsGaps(whole.Acknowledging):
    """Reads what there is, and goes on behind what is missing."""

    def _bodies(self, start: int, *, whole: bool) -> Any:
        for number in range(start, start + 200):
            data = self._body(number)
            if data is not None:
                yield number, data

    def _after(self, at: Any, segment: Any, data: bytes) -> Any:
        return super()._after(at.__class__(at.number, segment.previous, at.study, at.epoch), segment, data)


def unfenced(patch: pytest.MonkeyPatch) -> None:
    """A driver that goes on where it was, whoever took the study over."""

    def reload(self: Driver) -> None:
        self.state = self.log.load()
        self.log._at = self.log._at.__class__(self.log._at.number, self.log._at.chain, self.log._at.study, 0)
        for event in self._group.events:
            self.state.apply(event)

    patch.setattr(Driver, "_reload", reload)


def acts_first(patch: pytest.MonkeyPatch) -> None:
    """A driver that takes a decision for made, and goes on, whether it is in the log or not."""
    real = Driver._decide

    def decide(self: Driver, make: Callable[[], Any]) -> bool:
        try:
            return real(self, make)
        except Unavailable:
            decision = make()
            if decision:
                self.state.apply(decision)
            self._group.clear()
            return decision is not None

    patch.setattr(Driver, "_decide", decide)


def keyless(patch: pytest.MonkeyPatch) -> None:
    """A step that decides each time that it is run."""

    def record(study: Any, key: str, make: Callable[[StudyState], Any]) -> Any:
        while True:
            event = make(study.refresh())
            if study.log.commit([event], role="step", epoch=0):
                study.state.apply(event)
                return study.keep(study.state).steps[key]

    patch.setattr("tune_tasks.steps.record", record)


def launches_twice(patch: pytest.MonkeyPatch) -> None:
    """A driver that takes a study over without a look whether the step has been ended meanwhile."""

    def take_over(self: Driver, key: str) -> bool:
        while True:
            self.epoch = self.state.epoch + 1
            opened = Opened(epoch=self.epoch, owner=self.owner, time=time.time())
            if self.log.commit([opened], role="driver", epoch=self.epoch):
                self.state.apply(opened)
                return True
            self.state = self.log.load()

    patch.setattr(Driver, "_take_over", take_over)


def reads_on(patch: pytest.MonkeyPatch) -> None:
    """A study that goes on from a state into which a part of the news was read before the store failed."""

    def refresh(self: Any) -> StudyState:
        if self.log.head == self._head:
            self.log.catch_up(self.state)
            return self.keep(self.state)  # type: ignore[no-any-return]
        return self.keep(self.log.load())  # type: ignore[no-any-return]

    patch.setattr(studies.Study, "refresh", refresh)


def believes_zombies(patch: pytest.MonkeyPatch) -> None:
    """A fold that counts what an attempt reports that was replaced."""
    real = StudyState._report

    def report(self: StudyState, event: Any) -> None:
        now = [self.trials[number].attempts for number in event.trial]
        real(self, event.model_copy(update={"attempt": now}))

    patch.setattr(StudyState, "_report", report)


def deletes_first(patch: pytest.MonkeyPatch) -> None:
    """Deletes checkpoints before the log says so."""

    def tidy(study: Any) -> None:
        event = retention.discard(study.refresh(), time=time.time())
        if event is not None:
            checkpoints.remove(study.objects, event.keys)
            study.log.commit([event], role="step", epoch=0)
            study.distrust()

    patch.setattr("tune_tasks.steps.tidy", tidy)


def same_attempt(patch: pytest.MonkeyPatch) -> None:
    """Starts a trial again under the attempt that was lost."""
    real = Driver._task

    def task(trial: Any) -> Any:
        again = real(trial)
        return again._replace(attempt=max(1, again.attempt - 1)) if trial.losses else again

    patch.setattr(Driver, "_task", staticmethod(task))


def lets_others_log(log: type[whole.Acknowledging]) -> Callable[[pytest.MonkeyPatch], None]:
    def twin(patch: pytest.MonkeyPatch) -> None:
        patch.setattr("tests.simulation.test_twins.LOG", log)

    twin.__name__, twin.__doc__ = log.__name__, log.__doc__
    return twin


LOG = whole.Acknowledging

TWINS = [
    (forgetful_store, {"I1"}),
    (trusting_snapshots, {"I3"}),
    (lets_others_log(TrustsTheHint), {"I3"}),
    (lets_others_log(ReportsLosses), {"I1", "I2"}),
    (lets_others_log(HopesForTheBest), {"I1"}),
    (lets_others_log(SkipsGaps), {"I3"}),
    (unfenced, {"I4"}),
    (acts_first, {"I1", "I2", "I3"}),
    (keyless, {"I2"}),
    (launches_twice, {"I2"}),
    (reads_on, {"I3", "CorruptLog"}),
    (believes_zombies, {"I5"}),
    (deletes_first, {"I1"}),
    (same_attempt, {"I5"}),
]


def broken(seed: int) -> str:
    """The promise that a seed shows to be broken, or what else the engine itself stopped at; "" where nothing is."""
    try:
        with world(seed, log=LOG) as made:
            play(made)
    except Violation as violation:
        return str(violation)[:2]
    except (TuneError, ValueError) as error:
        return type(error).__name__
    return ""


@pytest.mark.parametrize(("twin", "promises"), TWINS, ids=lambda value: getattr(value, "__name__", None))
def test_a_broken_twin_is_found_out(twin: Any, promises: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    twin(monkeypatch)
    found = []
    for seed in range(SEEDS):
        found.append(broken(seed))
        if found[-1] in promises:
            return
    raise AssertionError(f"none of {promises} in {found}")


def test_every_promise_has_a_twin() -> None:
    assert set().union(*(promises for _, promises in TWINS)) >= {"I1", "I2", "I3", "I4", "I5"}


def test_what_is_not_drawn_from_the_seed_shows_in_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fingerprint(3) == fingerprint(3)
    monkeypatch.setattr("tests.simulation.world.Random", lambda _: SystemRandom())
    assert fingerprint(3) != fingerprint(3)


def test_a_store_that_ignores_the_condition_is_refused_before_anything_is_created(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forgetful_store(monkeypatch)
    shared = SharedObjects()
    with pytest.raises(ConfigError, match="cannot create an object only if it is absent"):
        probe(shared.process("first"))
    assert shared.objects == {}
