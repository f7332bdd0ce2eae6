"""A driver killed with SIGKILL at every store call, and at random moments: a short run of `benchmarks/chaos.py`.

That script also kills the digits study hundreds of times, and Ray Tune beside it. Here its own checks are checked too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.studies import write_study
from tune_tasks.events import Reports, Started
from tune_tasks.loop import tune
from tune_tasks.store import open_objects
from tune_tasks.store.log import StudyLog

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def chaos(*options: str) -> dict[str, dict[str, int]]:
    command = [sys.executable, str(BENCHMARKS / "chaos.py"), "--objective", "count", "--beside", "0", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    columns: dict[str, dict[str, int]] = json.loads(done.stdout)
    return columns


@pytest.mark.slow
def test_a_driver_killed_before_and_after_every_write_to_the_store_loses_and_repeats_nothing() -> None:
    (figures,) = chaos("--kills", "0", "--calls", "1", "--epochs", "3").values()
    assert figures["kills"] > 40
    assert figures["epochs re-run"] <= figures["kills"]  # each fact is a commit of its own here
    _nothing_lost(figures)


@pytest.mark.slow
def test_a_driver_killed_at_random_moments_loses_and_repeats_nothing() -> None:
    (figures,) = chaos("--kills", "4", "--trials", "12", "--calls", "0").values()
    assert figures["kills"] == 4
    _nothing_lost(figures)


def _nothing_lost(figures: dict[str, int]) -> None:
    from audit import LOSSES

    assert {name: figures[name] for name in LOSSES} == dict.fromkeys(LOSSES, 0)


def study(folder: Path) -> tuple[Path, list[tuple[str, int]]]:
    """A finished study, and what its objective would have noted."""
    url = Path(tune(write_study(folder, budget={"trials": 2, "concurrency": 1})).url)
    told = [event for s in StudyLog(open_objects(str(url))).segments() for event in s.events]
    rows = [zip(event.trial, event.step, strict=True) for event in told if isinstance(event, Reports)]
    return url, [(str(trial), step) for pairs in rows for trial, step in pairs]


def test_the_audit_finds_nothing_where_nothing_happened(tmp_path: Path) -> None:
    from audit import LOSSES, Audit

    url, trained = study(tmp_path)
    audit = Audit(url)
    audit.look(trained)
    figures = audit.conclude(trained)
    assert {name: figures[name] for name in LOSSES} == dict.fromkeys(LOSSES, 0)
    assert figures["epochs trained"] == len(trained) > 2


def test_the_audit_finds_a_segment_that_changed_and_reports_that_vanished(tmp_path: Path) -> None:
    from audit import Audit

    url, trained = study(tmp_path)
    audit = Audit(url)
    audit.look(trained)
    newest = max((url / "log").iterdir())
    newest.unlink()
    audit.look(trained)
    figures = audit.conclude([*trained, ("0", 99), ("7", 1)])
    assert figures["acknowledged segments lost or changed"] == 1
    assert figures["reports never recorded"] == 2
    assert figures["trials forgotten"] == 1


def test_the_audit_finds_a_trial_that_was_set_back_behind_its_checkpoint(tmp_path: Path) -> None:
    from audit import Audit

    url, trained = study(tmp_path)
    log = StudyLog(open_objects(str(url)))
    state, now = log.load(), time.time()
    again = state.trials[0].attempts + 1
    row: dict[str, Any] = {"trial": [0], "attempt": [again], "step": [1], "time": [now], "metrics": {"loss": [0.5]}}
    events = [Started(trial=0, attempt=again, step=0, worker="here:1", time=now), Reports(**row)]
    assert log.commit(events, role="driver", epoch=state.epoch)
    figures = Audit(url).conclude([*trained, ("0", 1)])
    assert figures["epochs re-run before a recorded checkpoint"] == 1
    assert figures["epochs re-run"] == 1
