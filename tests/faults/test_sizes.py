"""Reports and errors of any size: a trial is told what is too much, the study goes on, no commit is too large."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.faults.studies import spec_for, steps
from tests.studies import events
from tune_tasks.events import Ended
from tune_tasks.execution import Began, Message, Over, Row, TrialTask
from tune_tasks.execution.driver import Driver
from tune_tasks.steps import launch_trials, sample
from tune_tasks.store.local import LocalObjects
from tune_tasks.store.segment import LIMIT
from tune_tasks.studies import open_study

LOW_SURROGATE = "\udc80"
LONG = "\x00" * 3_000
"""Six times as many bytes in JSON."""
FIRST: dict[str, Any] = {
    "10 MB of metrics": {f"a metric of which there are many: {i}": i / 7 for i in range(140_000)},
    "a name of 1 MB": {"n" * 1_000_000: 1.0},
    "a name that is no UTF-8": {f"a{LOW_SURROGATE}": 1.0},
}
SAID = {
    "10 MB of metrics": "report 1 has 140,001 metrics, 9.5 MiB in all, must be at most 4 MiB",
    "a name of 1 MB": "nnn... has 1,000,000 characters, must be at most 1,000",
    "a name that is no UTF-8": r"metric name 'a\udc80' is not allowed, must be text that is UTF-8",
}


def largest(url: str) -> int:
    return max(path.stat().st_size for path in Path(url, "log").iterdir())


def first_is_bad(config: dict[str, Any], bad: dict[str, float]) -> None:
    first = tt.get_context().trial == 0
    tt.report({"loss": config["x"], **(bad if first else {})})


@pytest.mark.parametrize("kind", FIRST)
def test_a_report_that_is_too_much_fails_its_trial_with_the_size_and_the_limit(tmp_path: Path, kind: str) -> None:
    study = tt.tune(spec_for(partial(first_is_bad, bad=FIRST[kind]), tmp_path))
    assert [trial.state for trial in study.trials] == ["failed", "completed"]
    error = study.trials[0].error or ""
    assert SAID[kind] in error
    assert len(error) < 1_000
    assert largest(study.url) < 10_000


def test_a_hundred_thousand_metrics_in_one_report_are_kept(tmp_path: Path) -> None:
    many = {f"m{i}": float(i) for i in range(100_000)}
    study = tt.tune(spec_for(partial(first_is_bad, bad=many), tmp_path, budget={"trials": 1}))
    kept = tt.open_study(study.url).trials[0].reports[0].metrics
    assert {name: kept[name] for name in many} == many
    assert largest(study.url) < LIMIT


def other_names_each_time(config: dict[str, Any]) -> None:
    for step in range(60):
        tt.report({"loss": config["x"], **{f"{step}-{i}-{'n' * 80}": 0.1 for i in range(1_500)}})


def test_reports_with_new_names_each_time_make_no_commit_too_large(tmp_path: Path) -> None:
    """In columns, every row has a cell for every name: names times rows, where only the diagonal is filled."""
    changes = {"budget": {"trials": 1}, "scheduler": {"name": "none"}}
    execution = {"runner": "inline", "group_time": 60}
    study = tt.tune(spec_for(other_names_each_time, tmp_path, execution=execution, **changes))
    assert steps(study.url) == {(0, step): 1 for step in range(1, 61)}
    assert largest(study.url) < LIMIT


MESSAGES: dict[str, Callable[[], str]] = {
    "50 MB": lambda: "m" * 50_000_000,
    "of a million lines": lambda: "m\n" * 1_000_000,
    "that is no UTF-8": lambda: f"m{LOW_SURROGATE}",
}


def raise_error(_: dict[str, Any], message: Callable[[], str]) -> None:
    raise ValueError(message())


@pytest.mark.parametrize("kind", MESSAGES)
def test_whatever_an_exception_says_its_trial_fails_and_the_log_holds_the_beginning_and_the_end(
    tmp_path: Path, kind: str
) -> None:
    study = tt.tune(spec_for(partial(raise_error, message=MESSAGES[kind]), tmp_path))
    assert [trial.state for trial in study.trials] == ["failed", "failed"]
    assert study.trials[0].error == tt.open_study(study.url).trials[0].error
    assert "in raise_error" in (study.trials[0].error or "")
    assert largest(study.url) < 40_000


class AllAtOnce:
    """A runner with as many workers as there are trials, all of which speak at the same moment."""

    slots = 2_000

    def __init__(self, say: Callable[[TrialTask], list[Message]]) -> None:
        self._say = say
        self._tasks: list[TrialTask] = []

    def open(self, deliver: Callable[[Message], None]) -> None:
        self._deliver = deliver

    def room(self, waiting: int) -> int:
        return self.slots - len(self._tasks)

    def submit(self, tasks: Sequence[TrialTask]) -> None:
        self._tasks += tasks

    def wait(self, timeout: float) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            for message in self._say(task):
                self._deliver(message)

    def stop(self, trial: int, *, pause: bool) -> None:
        pass

    def avoid(self, nodes: Collection[str]) -> None:
        pass

    def close(self) -> None:
        pass


def test_two_thousand_trials_that_fail_at_once_with_long_errors_are_all_recorded(tmp_path: Path) -> None:
    def say(task: TrialTask) -> list[Message]:
        now = time.time()
        return [
            Began(task.trial, task.attempt, 0, "here", now),
            Row(task.trial, task.attempt, 1, now, {"loss": 1.0}),
            Over(task.trial, task.attempt, "failed", LONG, "ValueError", now),
        ]

    execution = {"runner": "inline", "batch": 2_000, "group_time": 60}
    study = open_study(spec_for(first_is_bad, tmp_path, budget={"trials": 2_000}, execution=execution))
    outcome = launch_trials(study, sample(study), runner=AllAtOnce(say))
    assert outcome.states == {"failed": 2_000}
    ended = [event for event in events(study.url) if isinstance(event, Ended)]
    assert [event.trial for event in ended] == list(range(2_000))
    assert all(event.error == LONG for event in ended)
    assert largest(study.url) < LIMIT


def as_fast_as_it_can(config: dict[str, Any]) -> None:
    for step in range(10_000):
        tt.report({"loss": config["x"] + step})


def test_a_store_slower_than_the_reports_makes_them_wait_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, most = LocalObjects.create, []

    def slowly(self: LocalObjects, key: str, data: bytes) -> bool:
        time.sleep(0.2)
        return create(self, key, data)

    waiting = Driver._report

    def counted(self: Driver, row: Row) -> None:
        waiting(self, row)
        most.append(len(self._group._table))

    changes = {"budget": {"trials": 1}, "scheduler": {"name": "none"}, "execution": {"runner": "inline"}}
    study = tt.open_study(spec_for(as_fast_as_it_can, tmp_path, **changes))
    batch = tt.sample(study)
    monkeypatch.setattr(LocalObjects, "create", slowly)
    monkeypatch.setattr(Driver, "_report", counted)
    tt.launch_trials(study, batch)
    assert steps(study.url) == {(0, step): 1 for step in range(1, 10_001)}
    assert max(most) <= study.spec.execution.group_rows
    assert largest(study.url) < LIMIT
