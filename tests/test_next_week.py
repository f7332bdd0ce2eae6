"""The commands for what follows a study, from the shell: extend, train-final and retrain."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.studies import COMMAND, events, write_study
from tune_tasks.fingerprints import fingerprint
from tune_tasks.next_week import data_named
from tune_tasks.steps import STEPS, perform

SMALL = {"budget": {"trials": 3}, "scheduler": {"name": "none", "max_budget": 2}}


def shell(folder: Path, *arguments: str, fails: int = 0) -> tuple[str, str]:
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == fails, done.stderr
    return done.stdout, done.stderr


def test_extend_opens_a_study_again_and_resume_goes_on(tmp_path: Path) -> None:
    study = tt.tune(write_study(tmp_path, **SMALL))
    said = json.loads(shell(tmp_path, "extend", study.url, "--set", "budget.trials=4", "--set", "space.x.high=2")[0])
    assert said == {"study": study.url, "done": False, "trials": 3, "wanted": 4}
    shell(tmp_path, "resume", study.url, "--no-promote")
    assert len(study.refresh().trials) == 4
    assert study.spec.space.root["x"].model_dump()["high"] == 2


def test_extend_says_what_cannot_change(tmp_path: Path) -> None:
    study = tt.open_study(write_study(tmp_path, **SMALL))
    error = shell(tmp_path, "extend", study.url, "--set", "scheduler.max_budget=1", fails=2)[1]
    assert error.strip() == (
        "ConfigError: scheduler.max_budget: 1 is not allowed; trials were given 2 already; it can only become larger"
    )


def test_train_final_is_a_step_of_the_command_line(tmp_path: Path) -> None:
    path = write_study(tmp_path, **SMALL, final={"seeds": 2})
    study = tt.tune(path)
    said = json.loads(shell(tmp_path, "train-final", str(path))[0])
    assert (said["study"], said["final"], said["trials"]) == (study.url, f"{study.url}-final", 2)
    assert json.loads(shell(tmp_path, "promote-best", said["final"])[0])["promoted"]
    assert said == perform("train_final", study)


def test_retrain_runs_a_schedule_to_a_promoted_model_and_skips_what_is_the_same(tmp_path: Path) -> None:
    path, data = write_study(tmp_path, **SMALL), tmp_path / "data.csv"
    data.write_text("1,2\n")
    url = f"{tmp_path / 'studies' / 'small'}"
    first = ("retrain", str(path), "--run", "2026-11-14", "--data", "data.csv")
    shell(tmp_path, *first)
    assert events(f"{url}-2026-11-14")[-1].type == "promoted"
    assert tt.open_study(f"{url}-2026-11-14").spec.data == f"{data}#{fingerprint(data)}"
    second = ("retrain", str(path), "--run", "2026-11-21", "--data", str(data))
    assert json.loads(shell(tmp_path, *second)[0])["skipped"].startswith(f"the data is '{data}#sha256:")
    data.write_text("1,3\n")
    said = shell(tmp_path, *second)[1]
    assert "Run 2026-11-21 of small begins with 3 configurations of small-2026-11-14" in said
    kinds = [event.type for event in events(f"{url}-2026-11-21")]
    assert kinds[-1] == "promoted"
    shell(tmp_path, *second)
    assert [event.type for event in events(f"{url}-2026-11-21")] == kinds, "run again, it did it again"


@pytest.mark.parametrize("text", [None, "v17", "sha256:12"])
def test_a_version_is_recorded_as_it_is(text: Any) -> None:
    assert data_named(text) == text


def test_every_row_of_the_step_table_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    from tune_tasks.cli import main

    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    assert {step.replace("_", "-") for step in STEPS} <= set(listed.split())
