"""The inline runner: the contract, and what only it promises."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tune_tasks.errors import Fenced, TuneError
from tune_tasks.execution import Began, Message, Over, Row
from tune_tasks.execution.inline import InlineRunner
from tune_tasks.session import get_context, report
from tune_tasks.testing import objectives
from tune_tasks.testing.driving import Story, read_log, spec_for, task
from tune_tasks.testing.runners import RunnerContract


def make(objective: Any, url: str, folder: str | None = None, **changes: Any) -> InlineRunner:
    named = objective if isinstance(objective, str) else "objective:unused"
    return InlineRunner(url, spec_for(named, **changes), objective, folder)


class TestInlineRunner(RunnerContract):
    def make(self, objective: Any, url: str, folder: str | None = None, **changes: Any) -> InlineRunner:
        return make(objective, url, folder, **changes)


def test_a_stop_takes_effect_at_the_very_report_that_caused_it(tmp_path: Path) -> None:
    runner = make(objectives.count, str(tmp_path))

    def stop(message: Message) -> None:
        if isinstance(message, Row) and message.step == 2:
            runner.stop(0, pause=False)

    story = Story(runner, stop)
    story.run(task(reports=9))
    assert story.steps() == [1, 2]


def test_an_objective_runs_in_this_process_on_the_main_thread(tmp_path: Path) -> None:
    seen = []
    story = Story(make(lambda config: seen.append(os.getpid()) or report({"loss": 1}), str(tmp_path)))
    story.run(task())
    assert seen == [os.getpid()]


def test_the_screen_shows_what_a_trial_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    streams = sys.stdout, sys.stderr
    Story(make(objectives.loud, str(tmp_path))).run(task(mark="here", how=["python"]))
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("from python here\n", "to stderr here\n")
    assert (sys.stdout, sys.stderr) == streams


def test_an_interruption_is_the_drivers_and_leaves_the_attempt_open(tmp_path: Path) -> None:
    def interrupt(config: dict[str, Any]) -> None:
        report({"loss": 1.0})
        raise KeyboardInterrupt

    story = Story(make(interrupt, str(tmp_path)))
    with pytest.raises(KeyboardInterrupt):
        story.run(task())
    assert story.of(Over) == []
    with pytest.raises(TuneError):  # no session is left over
        get_context()


def test_an_error_of_the_driver_is_not_taken_for_the_trials(tmp_path: Path) -> None:
    def fail(message: Message) -> None:
        if isinstance(message, Row):
            raise OSError("the disk is full")

    tries = []

    def ignore_everything(config: dict[str, Any]) -> None:
        for number in range(3):
            tries.append(number)
            try:
                report({"loss": 1.0})
            except Exception:  # noqa: BLE001  # must not keep the driver's error here
                continue

    story = Story(make(ignore_everything, str(tmp_path)), fail)
    with pytest.raises(OSError, match="the disk is full"):
        story.run(task())
    assert len(story.messages) == 2
    assert tries == [0], "the trial ends at that report"


@pytest.mark.parametrize("kind", [Began, Row, Over])
def test_an_error_of_the_driver_comes_out_as_it_is_whatever_it_was_told(tmp_path: Path, kind: type[Any]) -> None:
    def fail(message: Message) -> None:
        if isinstance(message, kind):
            raise Fenced("a newer driver took over")

    story = Story(make(objectives.count, str(tmp_path)), fail)
    with pytest.raises(Fenced):
        story.run(task())
    assert isinstance(story.messages[-1], kind)


def test_a_task_that_has_not_begun_is_given_back(tmp_path: Path) -> None:
    runner = make(objectives.count, str(tmp_path))
    story = Story(runner)
    runner.submit([task(5)])
    runner.stop(5, pause=True)
    story.until(lambda: bool(story.messages))
    assert [tuple(message) for message in story.messages] == [(5, 1)]


def test_output_reaches_a_store_that_is_not_local(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/study"
    Story(make(objectives.loud, url)).run(task(mark="far away", how=["python"]))
    assert read_log(url, 0) == "from python far away\nto stderr far away\n"
