"""Two drivers of one study, and two tries of one task at once: the newer one works on, and nothing is done twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.faults.studies import count_on, sampled, segments, spec_for, steps
from tests.studies import COMMAND, events, write_study
from tune_tasks.errors import Fenced
from tune_tasks.events import Ended, Launched, Opened, Planned
from tune_tasks.store.log import StudyLog
from tune_tasks.studies import Study, open_study


def start(folder: Path, *arguments: str, seconds: float = 0.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env={**os.environ, "STEP_SECONDS": str(seconds)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("seconds", [0.0, 0.05], ids=["which has finished", "which still runs"])
def test_a_driver_that_was_stopped_and_goes_on_leaves_the_study_to_the_newer_one(
    tmp_path: Path, seconds: float
) -> None:
    spec = write_study(tmp_path, budget={"trials": 4, "concurrency": 1})
    url = str(tmp_path / "studies" / "small")
    old = start(tmp_path, "run", str(spec), "--no-promote", seconds=0.1)
    until(lambda: len(segments(url)) > 4)
    old.send_signal(signal.SIGSTOP)
    before = segments(url)
    new = start(tmp_path, "resume", url, "--no-promote", seconds=seconds)
    if seconds:
        until(lambda: len(segments(url)) > len(before) + 3)
    else:
        new.wait(timeout=60)
    taken = segments(url)
    old.send_signal(signal.SIGCONT)
    _, said = old.communicate(timeout=60)
    assert old.returncode == Fenced.exit_code, said
    last = said.strip().splitlines()[-1]
    assert re.fullmatch(rf"Fenced: {url}: a newer driver \(epoch \d\) took the study over from epoch 1", last)
    new.communicate(timeout=60)
    assert new.returncode == 0
    after = segments(url)
    assert {name: after[name] for name in taken} == taken
    _writes_nothing_more(url, len(before))
    assert sampled(url) == [0, 1, 2, 3]
    assert open_study(url).state.done


def _writes_nothing_more(url: str, known: int) -> None:
    """After the newer driver opened, no segment is the older one's."""
    log = list(StudyLog(tt.open_study(url).objects).segments())
    opened = next(s.number for s in log if any(isinstance(e, Opened) and e.epoch == 2 for e in s.events))
    old = {segment.writer for segment in log[:known]}
    assert opened > known
    assert all(segment.writer not in old for segment in log[opened:])


def test_two_tries_of_one_launch_step_at_once_give_one_result(tmp_path: Path) -> None:
    spec = write_study(tmp_path, budget={"trials": 4, "concurrency": 1})
    url = str(tmp_path / "studies" / "small")
    _together([start(tmp_path, "sample", str(spec)) for _ in range(2)])
    tries = [start(tmp_path, "launch-trials", url, "--batch", "main-0000", seconds=0.02) for _ in range(3)]
    ended = [(process.wait(timeout=60), *process.communicate()) for process in tries]
    assert {code for code, _, _ in ended} <= {0, Fenced.exit_code}, ended
    results = [json.loads(said) for code, said, _ in ended if code == 0]
    assert results
    assert all(result == results[0] for result in results)
    told = events(url)
    assert sum(isinstance(event, Launched) for event in told) == 1
    assert [event.trial for event in told if isinstance(event, Ended) and event.outcome == "reached"] == [0, 1, 2, 3]
    assert _together([start(tmp_path, "evaluate-and-prune", url, "--batch", "main-0000") for _ in range(2)])
    assert len(events(url)) == len(told) + 1


def test_two_tries_of_one_sample_step_at_once_sample_once(tmp_path: Path) -> None:
    spec = write_study(tmp_path)
    first = _together([start(tmp_path, "sample", str(spec)) for _ in range(3)])
    assert [row["trial"] for row in first["trials"]] == [0, 1, 2, 3]
    planned = [event for event in events(str(tmp_path / "studies" / "small")) if isinstance(event, Planned)]
    assert len(planned) == 1


def _together(processes: list[subprocess.Popen[str]]) -> Any:
    """The one result of several processes that must agree."""
    said = [process.communicate(timeout=60) for process in processes]
    assert all(process.returncode == 0 for process in processes), said
    results = [json.loads(output) for output, _ in said]
    assert all(result == results[0] for result in results)
    return results[0]


def test_a_launch_step_that_another_try_finished_meanwhile_returns_its_result(tmp_path: Path) -> None:
    """The other try ends between the look at the log and the take-over: the step must not end a second time."""
    spec = spec_for(partial(count_on, before=lambda *_: None), tmp_path)
    other = tt.open_study(spec)
    batch = tt.sample(other)

    class Late(Study):
        """Looks, and is overtaken."""

        finished: Any = None

        def refresh(self) -> Any:
            state = super().refresh()
            self.finished = self.finished or tt.launch_trials(other, batch)
            return state

    late = Late(other.objects, spec)
    assert tt.launch_trials(late, batch) == late.finished
    assert sum(isinstance(event, Launched) for event in events(other.url)) == 1
    assert set(steps(other.url).values()) == {1}
