"""Thousands of worlds, each drawn from its seed: whatever fails and whoever is killed, no promise is broken."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.simulation import test_twins as twins
from tests.simulation.play import fingerprint
from tests.simulation.soak import work

SEEDS = 2_000
QUARTER = SEEDS // 4
ROOT = Path(__file__).parents[2]


def soak(first: int, count: int) -> subprocess.CompletedProcess[str]:
    """Plays seeds in a process of their own, as `make soak` does."""
    command = [sys.executable, "-m", "tests.simulation.soak", "--first", str(first), "--count", str(count)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, QUARTER))
def test_thousands_of_worlds_keep_every_promise(first: int) -> None:
    """On two cores at once: each process plays one half."""
    half = QUARTER // 2
    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(soak, [first, first + half], [half] * 2))
    for done in halves:
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        assert f"{half} seeds" in done.stdout


@pytest.mark.parametrize("seed", [3, 8, 21, 34])
def test_a_seed_gives_the_same_bytes_in_every_process(seed: int) -> None:
    program = f"from tests.simulation.play import fingerprint; import json; print(json.dumps(fingerprint({seed})))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == fingerprint(seed)


def test_what_earlier_tests_left_running_changes_no_byte() -> None:
    expected, over = fingerprint(8), threading.Event()

    def restless() -> None:
        while not over.is_set():
            after = threading.Timer(0.0, lambda: (time.time(), uuid.uuid4(), random.random()))
            after.start()
            after.join()

    left = threading.Thread(target=restless)
    left.start()
    try:
        assert fingerprint(8) == expected
    finally:
        over.set()
        left.join()


def test_a_seed_that_breaks_a_promise_is_named_with_the_command_that_plays_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    twins.keyless(monkeypatch)
    assert work(first=0, count=3, minutes=0) == 1
    said = capsys.readouterr().out
    assert "seed 0 is broken; again: python -m tests.simulation.soak --first 0 --count 1" in said
    assert "I2: " in said
