"""A killed run goes on: nothing committed is lost, nothing is sampled twice, the total is as asked."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.studies import COMMAND, events, story, write_study
from tune_tasks.events import Planned, Reports
from tune_tasks.studies import open_study


def start(spec: Path, *arguments: str, seconds: float = 0.004) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env={**os.environ, "STEP_SECONDS": str(seconds)},
        cwd=spec.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # A shell starts what it runs in the background deaf to Ctrl-C, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # there is one thread here
    )


def run(spec: Path, *arguments: str) -> None:
    process = start(spec, *arguments)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


def segments(url: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((url / "log").glob("*.jsonl"))}


def sampled(url: str) -> list[int]:
    return [p.number for event in events(url) if isinstance(event, Planned) for p in event.proposals]


def repeated(url: str) -> int:
    """Steps that were reported more than once."""
    seen: list[tuple[int, int]] = []
    for event in events(url):
        if isinstance(event, Reports):
            seen += list(zip(event.trial, event.step, strict=True))
    return len(seen) - len(set(seen))


def outcome(url: str) -> list[tuple[Any, ...]]:
    """How each trial ended, without how often it was interrupted on the way."""
    return [(t.number, t.params["x"], t.state, t.value, t.budget) for t in open_study(url).trials]


@pytest.mark.parametrize("flow", ["rounds", "streaming"])
def test_a_study_killed_again_and_again_ends_as_if_it_had_never_been(tmp_path: Path, flow: str) -> None:
    chance = random.Random(flow)
    execution = {"runner": "inline", "batch": 4, "flow": flow}
    quiet = write_study(tmp_path / "quiet", execution=execution)
    run(quiet, "run", str(quiet), "--no-promote")
    spec = write_study(tmp_path / "killed", execution=execution)
    url, kills, committed = tmp_path / "killed" / "studies" / "small", 0, {}
    while kills < 6:
        process = start(spec, "run", str(spec), "--no-promote", seconds=0.05)
        limit = time.monotonic() + 60
        while process.poll() is None and len(segments(url)) < len(committed) + 2 and time.monotonic() < limit:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.2))
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        kills += 1
        now = segments(url)
        assert {name: now[name] for name in committed} == committed
        committed = now
    assert kills >= 3
    run(spec, "resume", str(url), "--no-promote")
    assert sampled(str(url)) == list(range(9))
    assert repeated(str(url)) <= kills
    assert outcome(str(url)) == outcome(str(tmp_path / "quiet" / "studies" / "small"))


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(tmp_path: Path) -> None:
    spec = write_study(tmp_path)
    process = start(spec, "run", str(spec), "--no-promote", seconds=0.2)
    url = tmp_path / "studies" / "small"
    while len(segments(url)) < 4:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"tune-tasks resume {url}" in errors.decode()
    before = len(segments(url))
    run(spec, "run", str(spec), "--no-promote")
    assert len(segments(url)) > before
    assert open_study(str(url)).state.done


def test_a_finished_study_is_left_as_it_is_when_run_again(tmp_path: Path) -> None:
    spec = write_study(tmp_path)
    run(spec, "run", str(spec))
    before = story(str(tmp_path / "studies" / "small"))
    run(spec, "run", str(spec))
    assert story(str(tmp_path / "studies" / "small")) == before
