"""The driver: facts are committed in time, decisions before they are acted upon, and a killed trial loses little."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import tune_tasks as tt
from tests.studies import events, write_study
from tune_tasks.events import Pruned, Reports
from tune_tasks.store import open_objects
from tune_tasks.store.log import StudyLog


def test_reports_of_a_long_trial_are_committed_while_it_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STEP_SECONDS", "0.05")
    spec = write_study(tmp_path, scheduler={"name": "none", "max_budget": 20}, budget={"trials": 1})
    study = tt.open_study(spec)
    batch = tt.sample(study)
    seen: list[int] = []

    def look() -> None:
        log = StudyLog(open_objects(study.url))
        while len(seen) < 3:
            seen.append(log.load().trials[0].budget)
            time.sleep(0.2)

    reader = threading.Thread(target=look)
    reader.start()
    tt.launch_trials(study, batch)
    reader.join()
    assert any(0 < budget < 20 for budget in seen)


def test_a_group_of_reports_is_no_larger_than_asked(tmp_path: Path) -> None:
    execution = {"runner": "inline", "group_rows": 3, "group_time": 60}
    spec = write_study(tmp_path, scheduler={"name": "none", "max_budget": 9}, budget={"trials": 2}, execution=execution)
    study = tt.tune(spec)
    sizes = [
        sum(len(event.trial) for event in segment.events if isinstance(event, Reports))
        for segment in StudyLog(open_objects(study.url)).segments()
    ]
    assert sum(sizes) == 18
    assert max(sizes) == 3


def test_a_hopeless_trial_is_stopped_at_the_report_that_shows_it_and_the_reason_is_recorded_first(
    tmp_path: Path,
) -> None:
    spec = write_study(
        tmp_path,
        scheduler={"name": "median", "max_budget": 9, "grace": 2, "min_trials": 2},
        budget={"trials": 8, "concurrency": 1},
        sampler={"name": "sobol"},
    )
    study = tt.tune(spec)
    pruned = [trial for trial in study.trials if trial.state == "pruned"]
    assert pruned
    for trial in pruned:
        assert trial.budget < 9
        assert "median" in trial.why
        told = [event for event in events(study.url) if getattr(event, "trial", None) == trial.number]
        kinds = [event.type for event in told]
        assert kinds.index("pruned") < kinds.index("ended")
        assert next(event for event in told if isinstance(event, Pruned)).step == trial.budget
        printed = study.objects.read(f"logs/{trial.number:06d}-1.txt") or b""
        assert printed.count(b"step") == trial.budget


def test_a_trial_that_never_checkpoints_is_waited_for_and_not_paused(tmp_path: Path) -> None:
    spec = write_study(tmp_path, objective="objective:once", scheduler={"name": "none"}, budget={"trials": 5})
    study = tt.tune(spec)
    assert study.state.count("completed") == 5
    assert all(trial.attempts == 1 for trial in study.trials)


def test_wall_time_ends_a_study_and_leaves_it_ready_to_go_on(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STEP_SECONDS", "0.1")
    spec = write_study(tmp_path, scheduler={"name": "none", "max_budget": 50}, budget={"trials": 3, "wall_time": 0.6})
    study = tt.tune(spec)
    assert study.state.done
    assert "wall time" in study.state.reason
    assert 0 < study.trials[0].budget < 50
    monkeypatch.setenv("STEP_SECONDS", "0")
    again = tt.open_study(tt.load_spec(spec, {"budget.wall_time": "10m"}), amend=True)
    assert tt.tune(again).state.count("completed") == 3


WIDE = """
import tune_tasks as tt


def train(config):
    for step in range(tt.get_context().max_budget):
        tt.report({"loss": 1.0, **{f"of step {step}: {n}": float(n) for n in range(400)}})
        if step == 0 and config["x"] < 0.5:
            raise RuntimeError("\\n".join(["é" * 1_000] * 15))
"""


def test_no_commit_nears_the_limit_of_a_segment_whatever_is_reported_and_raised(tmp_path: Path) -> None:
    execution = {"runner": "inline", "group_rows": 100_000, "group_time": 3600}
    changes = {"scheduler": {"name": "none", "max_budget": 20}, "budget": {"trials": 8}, "execution": execution}
    spec = write_study(tmp_path, **changes, retry={"failures": 100})
    (tmp_path / "objective.py").write_text(WIDE)
    study = tt.tune(spec)
    sizes = [entry.size for entry in study.objects.entries("log/")]
    assert max(sizes) < 7 << 20
    assert sum(sizes) > 8 << 20
    whole = [trial for trial in study.trials if trial.state == "completed"]
    assert whole
    assert all(trial.reports[6].metrics["of step 6: 399"] == 399.0 for trial in whole)
    assert any(trial.failures == 101 for trial in study.trials)
