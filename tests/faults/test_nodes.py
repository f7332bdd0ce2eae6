"""A lost node costs the steps since the last checkpoints; a lost cluster is left for another machine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.ray_nodes import Nodes, cluster
from tests.studies import COMMAND, events, write_study
from tune_tasks.errors import StudyNotFound
from tune_tasks.events import Started
from tune_tasks.studies import open_study

pytestmark = pytest.mark.ray


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with cluster() as started:
        yield started


@pytest.fixture
def launch() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """Starts a run of a study, and ends it with the test."""
    started = []

    def start(spec: Path) -> subprocess.Popen[bytes]:
        started.append(
            subprocess.Popen(
                [*COMMAND, "run", str(spec), "--no-promote"],
                env={**os.environ, "STEP_SECONDS": "0.2"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def until(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    """Waits for what the log must tell while the study runs."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, f"it ended with {process.returncode}"
        if reached():
            return
        time.sleep(0.1)
    raise AssertionError("it never came to that")


def newest(url: str) -> list[int]:
    """The steps of the trials' newest recorded checkpoints."""
    try:
        return [trial.checkpoint[0] for trial in open_study(url).trials if trial.checkpoint]
    except StudyNotFound:
        return []


def starts(url: str) -> list[Started]:
    return [event for event in events(url) if isinstance(event, Started)]


def test_a_lost_node_and_then_the_lost_cluster_with_its_driver_cost_no_recorded_step(
    tmp_path: Path, nodes: Nodes, launch: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    nodes("add")
    changes = {"scheduler": {"name": "none", "max_budget": 400}, "budget": {"trials": 2, "concurrency": 2}}
    spec = write_study(tmp_path, **changes, execution={"runner": "ray", "address": nodes.address})
    url = str(tmp_path / "studies" / "small")
    process = launch(spec)
    until(process, lambda: len(newest(url)) == 2)
    nodes("add")
    nodes("kill")
    before = min(newest(url))
    until(process, lambda: {event.trial for event in starts(url) if event.attempt > 1} == {0, 1})
    lost = [event for event in events(url) if event.type == "ended"]
    assert {(event.trial, event.outcome, event.retry) for event in lost} == {(0, "lost", True), (1, "lost", True)}
    assert all(event.step >= before for event in starts(url) if event.attempt > 1)
    assert [trial.failures for trial in open_study(url).trials] == [0, 0]

    again = max(newest(url))
    until(process, lambda: min(newest(url)) > again)
    nodes("head")
    process.kill()
    process.wait()
    recorded = newest(url)
    local = write_study(tmp_path, **changes, execution={"runner": "inline"})
    done = subprocess.run([*COMMAND, "run", str(local), "--amend", "--no-promote"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert [trial.budget for trial in open_study(url).trials] == [400, 400]
    assert {event.trial: event.step for event in starts(url)[-2:]} == dict(enumerate(recorded))
