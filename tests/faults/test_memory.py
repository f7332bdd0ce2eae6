"""A large study takes little memory: what opening one costs is what it holds, in columns."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.faults.studies import spec_for
from tune_tasks.events import Created, Ended, Opened, Planned, Reports, Started
from tune_tasks.store import open_objects
from tune_tasks.store.log import StudyLog

TRIALS, STEPS, TOGETHER = 10_000, 100, 200
LIMIT_KIB = 150 << 10

OPEN = """
import resource, sys
from tune_tasks.studies import open_study
import optuna, tune_tasks.steps

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
study = open_study(sys.argv[1])
assert (len(study.trials), study.trials[-1].budget) == (10_000, 100)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def write(url: str) -> None:
    """A study of ten thousand trials with a hundred reports each, fifty segments long, without a snapshot."""
    log, now = StudyLog(open_objects(url)), time.time()
    spec = spec_for("tests.studies:write_study", "memory://unused").record()
    assert log.create(Created(study="0" * 32, spec=spec, folder=None, time=now))
    assert log.commit([Opened(epoch=1, owner="here:1", time=now)], role="driver", epoch=1)
    for first in range(0, TRIALS, TOGETHER):
        numbers = list(range(first, first + TOGETHER))
        planned = {
            "key": f"main-{first:06d}/sample",
            "run": "main",
            "round": first,
            "batch": f"main-{first:06d}",
            "proposals": [{"number": n, "params": {"x": n / TRIALS}, "reason": "drawn at random"} for n in numbers],
            "assignments": [{"trial": n, "budget": STEPS, "last": True, "reason": "drawn at random"} for n in numbers],
            "exhausted": False,
            "time": now,
        }
        rows = [(n, step) for n in numbers for step in range(1, STEPS + 1)]
        reports = Reports(
            trial=[n for n, _ in rows],
            attempt=[1] * len(rows),
            step=[step for _, step in rows],
            time=[now] * len(rows),
            metrics={"loss": [n / step for n, step in rows]},
        )
        started = [Started(trial=n, attempt=1, step=0, worker="here:1", time=now) for n in numbers]
        ended = [Ended(trial=n, attempt=1, outcome="reached", time=now) for n in numbers]
        assert log.commit([Planned(**planned), *started, reports, *ended], role="driver", epoch=1)


def test_opening_ten_thousand_trials_takes_less_than_150_mib_with_a_snapshot_and_without(tmp_path: Path) -> None:
    url = str(tmp_path / "disturbed")
    write(url)
    assert _cost(url) < LIMIT_KIB
    log = StudyLog(open_objects(url))
    log.snapshot(log.load())
    log.settle()
    assert open_objects(url).list("snap/")
    assert _cost(url) < LIMIT_KIB


def _cost(url: str) -> int:
    """The most memory that a process has had, in KiB, above what it had before it opened the study."""
    done = subprocess.run([sys.executable, "-c", OPEN, url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
