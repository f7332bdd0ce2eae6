"""Clocks an hour off, of the driver and of the workers: nothing is ordered, decided or ended by them."""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

import tune_tasks as tt
from tests.faults.studies import Before, count_on, spec_for
from tests.studies import story
from tune_tasks.store.log import SNAPSHOT_EVERY

HOUR = 3600.0
DRIVER = ("studies", "steps", "execution.driver", "store.log", "promotion.promote")
WORKER = ("session", "execution.attempt", "execution.worker")


class Clock:
    """The module `time`, but for what it says about the time of day."""

    def __init__(self, offsets: Iterator[float]) -> None:
        self._offsets = offsets

    def time(self) -> float:
        return time.time() + next(self._offsets)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class Skew(Protocol):
    def __call__(self, driver: float, worker: float, *, back_and_forth: bool = False) -> None: ...


@pytest.fixture
def skew(monkeypatch: pytest.MonkeyPatch) -> Skew:
    """Sets the clocks of drivers and of workers wrong by so many seconds, or back and forth at every look."""

    def set_clocks(driver: float, worker: float, *, back_and_forth: bool = False) -> None:
        for modules, offset in ((DRIVER, driver), (WORKER, worker)):
            clock = Clock(itertools.cycle([offset, -offset] if back_and_forth else [offset]))
            for name in modules:
                monkeypatch.setattr(importlib.import_module(f"tune_tasks.{name}"), "time", clock, raising=False)

    return set_clocks


RUNGS = {
    "scheduler": {"name": "asha", "min_budget": 1, "max_budget": 6, "reduction_factor": 3},
    "budget": {"trials": 9, "concurrency": 1, "wall_time": "10m"},
    "execution": {"runner": "inline", "batch": 4},
}


def run(store: Path, before: Before = lambda *_: None, **changes: Any) -> tt.Study:
    """A study of nine trials in rungs, watched for a time that runs backwards."""
    elapsed: list[float] = []
    spec = spec_for(partial(count_on, before=before), store, **{**RUNGS, **changes})
    study = tt.tune(spec, on_change=lambda state: elapsed.append(state.elapsed))
    assert all(seconds >= 0 for seconds in elapsed)
    return study


@pytest.mark.parametrize("worker", [-HOUR, 0.0, HOUR])
@pytest.mark.parametrize("driver", [-HOUR, 0.0, HOUR])
def test_a_clock_that_is_wrong_changes_no_decision(tmp_path: Path, skew: Skew, driver: float, worker: float) -> None:
    run(tmp_path / "right")
    skew(driver, worker)
    study = run(tmp_path / "wrong")
    assert story(study.url) == story(str(tmp_path / "right" / "disturbed"))
    assert study.state.done
    assert 0 <= study.state.elapsed < 60


def test_clocks_that_jump_an_hour_back_and_forth_change_no_decision(tmp_path: Path, skew: Skew) -> None:
    run(tmp_path / "right")
    skew(HOUR, HOUR, back_and_forth=True)
    study = run(tmp_path / "wrong")
    assert story(study.url) == story(str(tmp_path / "right" / "disturbed"))
    assert 0 <= study.state.elapsed < 60


@pytest.mark.parametrize("offset", [-HOUR, HOUR])
def test_a_driver_elsewhere_whose_clock_is_wrong_goes_on_with_the_same_study(
    tmp_path: Path, skew: Skew, offset: float
) -> None:
    def before(trial: int, step: int) -> None:
        if (trial, step) == (2, 1):
            raise KeyboardInterrupt

    run(tmp_path / "right")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "wrong", before)
    skew(offset, -offset)
    study = run(tmp_path / "wrong")
    right = tt.open_study(str(tmp_path / "right" / "disturbed"))
    assert [(t.number, t.params, t.state, t.value) for t in study.trials] == [
        (t.number, t.params, t.state, t.value) for t in right.trials
    ]
    assert 0 <= study.state.elapsed < 60


def test_a_snapshot_by_a_clock_that_is_wrong_is_as_good(tmp_path: Path, skew: Skew) -> None:
    skew(-HOUR, HOUR)
    study = run(
        tmp_path,
        scheduler={"name": "none", "max_budget": 6},
        budget={"trials": SNAPSHOT_EVERY // 4, "concurrency": 1},
        execution={"runner": "inline", "group_time": 1e-9},
    )
    study.log.settle()
    assert study.objects.list("snap/")
    again = tt.open_study(study.url)
    assert again.trials == study.trials
    assert again.state.elapsed == study.state.elapsed
