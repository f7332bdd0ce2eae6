"""What nodes that are lost, drained or frozen cost; a lost cluster is left for another machine."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.ray_nodes import Nodes, cluster
from tests.studies import COMMAND, events, write_study
from tune_tasks.errors import StudyNotFound
from tune_tasks.events import Checkpointed, Ended, Reports, Started
from tune_tasks.studies import open_study

pytestmark = pytest.mark.ray

LONG = {
    "scheduler": {"name": "none", "max_budget": 400},
    "budget": {"trials": 2, "concurrency": 2},
    "environment": {"variables": {"STEP_SECONDS": "0.2"}},
}
"""Two trials that are still at it when everything has gone wrong."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """One cluster for both: the first test leaves no node but the head, and the second one kills that."""
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


def ends(url: str) -> list[Ended]:
    return [event for event in events(url) if isinstance(event, Ended)]


def repeated(url: str) -> list[tuple[int, int]]:
    """Every step of a trial that was reported again by a later attempt."""
    pairs = [
        pair
        for event in events(url)
        if isinstance(event, Reports)
        for pair in zip(event.trial, event.step, strict=True)
    ]
    return [pair for pair, count in Counter(pairs).items() if count > 1]


def late(url: str) -> list[tuple[int, int]]:
    """What the log has of an attempt after its end, by trial and attempt."""
    over, found = set[tuple[int, int]](), list[tuple[int, int]]()
    for event in events(url):
        if isinstance(event, Ended):
            over.add((event.trial, event.attempt))
        elif isinstance(event, Reports):
            found += [pair for pair in zip(event.trial, event.attempt, strict=True) if pair in over]
        elif isinstance(event, Checkpointed) and (event.trial, event.attempt) in over:
            found.append((event.trial, event.attempt))
    return found


def test_a_drained_node_costs_no_step_and_a_frozen_one_that_comes_back_changes_nothing(
    tmp_path: Path, nodes: Nodes, launch: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    first = nodes("add 2")
    execution = {"runner": "ray", "address": nodes.address, "heartbeat": 5}
    spec = write_study(tmp_path, **LONG, execution=execution)
    url = str(tmp_path / "studies" / "small")
    process = launch(spec)
    until(process, lambda: len(newest(url)) == 2)
    second = nodes("add 2")
    nodes("drain 120")
    until(process, lambda: len(ends(url)) == 2)
    assert {(event.trial, event.outcome, event.error) for event in ends(url)} == {
        (0, "moved", None),
        (1, "moved", None),
    }
    until(process, lambda: [e.node for e in starts(url)] == [first, first, second, second])
    assert repeated(url) == []

    nodes("kill")
    nodes("add 2")
    again = max(newest(url))
    until(process, lambda: min(newest(url)) > again)
    nodes("freeze")
    until(process, lambda: len(ends(url)) == 4)
    assert all(event.outcome == "lost" and event.retry for event in ends(url)[2:])
    assert all(f"on node {second[:12]}: it gave no sign of life" in str(event.error) for event in ends(url)[2:])
    until(process, lambda: len(starts(url)) == 6)
    nodes("thaw")
    again = max(newest(url))
    until(process, lambda: min(newest(url)) > again + 10)
    assert late(url) == []
    assert [trial.failures for trial in open_study(url).trials] == [0, 0]
    process.kill()
    process.wait()
    for _ in range(2):
        nodes("kill")


def test_a_lost_node_and_then_the_lost_cluster_with_its_driver_cost_no_recorded_step(
    tmp_path: Path, nodes: Nodes, launch: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    nodes("add")
    changes = {**LONG, "scheduler": {"name": "none", "max_budget": 200}}
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
    assert [trial.budget for trial in open_study(url).trials] == [200, 200]
    assert {event.trial: event.step for event in starts(url)[-2:]} == dict(enumerate(recorded))
