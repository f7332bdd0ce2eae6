"""A store that does not answer is asked again, up to a deadline, and then said to be unavailable."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.store.memory import MemoryObjects
from tune_tasks.store.retry import Retrying


class Clock:
    """Time that passes only when someone sleeps or a call takes long."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Failing(MemoryObjects):
    """Fails the first `times` calls, each of which takes `seconds`."""

    def __init__(self, clock: Clock, times: float, seconds: float = 0.0, error: Exception | None = None) -> None:
        super().__init__(uuid4().hex)
        self.clock, self.times, self.seconds = clock, times, seconds
        self.error = error or Unavailable("busy")
        self.calls = 0

    def read(self, key: str) -> bytes | None:
        self.calls += 1
        self.clock.now += self.seconds
        if self.calls <= self.times:
            raise self.error
        return super().read(key)

    def download(self, key: str, target: Path, size: int) -> None:
        self.read(key)


def patient(failing: Failing, deadline: float = 60.0) -> Retrying:
    return Retrying(failing, deadline, clock=failing.clock, sleep=failing.clock.sleep)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_call_that_fails_a_few_times_succeeds(clock: Clock):
    assert patient(Failing(clock, times=6)).read("a") is None


def test_the_pauses_grow_up_to_a_longest(clock: Clock):
    with pytest.raises(Unavailable):
        patient(Failing(clock, times=1e9)).read("a")
    assert clock.slept[0] <= 0.05
    assert all(0.5 * 0.05 * 2**n <= pause <= 0.05 * 2**n for n, pause in enumerate(clock.slept[:6]))
    assert max(clock.slept) <= 5.0
    assert len(clock.slept) < 40


@pytest.mark.parametrize("seconds", [0.0, 0.3, 7.0, 20.0])
def test_the_deadline_holds_however_long_a_call_hangs(clock: Clock, seconds: float):
    with pytest.raises(Unavailable, match=r"memory://\w+: cannot read a within 60 s \(busy\); try again later"):
        patient(Failing(clock, times=1e9, seconds=seconds)).read("a")
    assert clock.now <= 60.0


def test_a_hang_longer_than_the_deadline_is_not_tried_again(clock: Clock):
    failing = Failing(clock, times=1e9, seconds=90.0)
    with pytest.raises(Unavailable):
        patient(failing).read("a")
    assert failing.calls == 1


def test_a_copy_may_take_longer_than_the_deadline_before_it_fails(clock: Clock, tmp_path: Path):
    failing = Failing(clock, times=1, seconds=600.0)
    assert patient(failing).download("a", tmp_path / "a", 1) is None
    assert failing.calls == 2


def test_who_waits_long_is_told_once(clock: Clock, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING), pytest.raises(Unavailable):
        patient(Failing(clock, times=1e9)).read("log/1")
    (record,) = caplog.records
    assert "to read log/1: busy" in record.getMessage()


def test_a_blink_is_not_worth_a_line(clock: Clock, caplog: pytest.LogCaptureFixture):
    patient(Failing(clock, times=2)).read("a")
    assert caplog.records == []


@pytest.mark.parametrize("error", [ConfigError("store: no"), KeyboardInterrupt(), RuntimeError("a bug")])
def test_what_another_try_does_not_mend_is_raised_at_once(clock: Clock, error: Exception):
    failing = Failing(clock, times=1e9, error=error)
    with pytest.raises(type(error)):
        patient(failing).read("a")
    assert failing.calls == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda objects: objects.create("../a", b""),
        lambda objects: objects.upload(Path("/nowhere"), "a/.tmp-1"),
        lambda objects: objects.download("/a", Path("/nowhere"), 1),
        lambda objects: objects.list("../"),
    ],
)
def test_a_key_is_checked_before_the_backend_is_asked(clock: Clock, call: Callable):
    with pytest.raises(ConfigError, match="key"):
        call(patient(Failing(clock, times=1e9)))
