"""Python, the shell and Prefect leave the same log, step by step, for the same spec and seed.

Airflow, which needs an environment of its own, is compared with Python in `tests/dags/test_parity.py`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.flows.running import run_flow
from tests.studies import COMMAND, story, write_study


def in_python(spec: Path) -> None:
    study = tt.open_study(spec)
    while True:
        batch = tt.sample(study)
        tt.launch_trials(study, batch)
        if tt.evaluate_and_prune(study, batch).done:
            break
    tt.promote_best(study)


def in_a_loop(spec: Path) -> None:
    tt.promote_best(tt.tune(spec))


def from_a_shell(spec: Path) -> None:
    def answer(*arguments: object) -> Any:
        return json.loads(subprocess.run([*COMMAND, *map(str, arguments)], check=True, capture_output=True).stdout)

    while True:
        batch = answer("sample", spec)["batch"]
        answer("launch-trials", spec, "--batch", batch)
        if answer("evaluate-and-prune", spec, "--batch", batch)["done"]:
            break
    answer("promote-best", spec)


WAYS: dict[str, Callable[[Path], None]] = {"loop": in_a_loop, "shell": from_a_shell, "prefect": run_flow}


@pytest.mark.prefect
@pytest.mark.slow
def test_every_way_to_run_a_study_leaves_the_same_log(tmp_path: Path) -> None:
    changes = {"sampler": {"name": "tpe", "seed": 7, "startup": 3}, "budget": {"trials": 5, "concurrency": 1}}
    in_python(write_study(tmp_path / "python", **changes))
    expected = story(str(tmp_path / "python" / "studies" / "small"))
    assert expected[-1]["type"] == "promoted"
    for name, way in WAYS.items():
        way(write_study(tmp_path / name, **changes))
        assert story(str(tmp_path / name / "studies" / "small")) == expected, name


def test_another_seed_leaves_another_log(tmp_path: Path) -> None:
    for seed in (1, 2):
        in_a_loop(write_study(tmp_path / str(seed), sampler={"name": "random", "seed": seed}))
    assert story(str(tmp_path / "1" / "studies" / "small")) != story(str(tmp_path / "2" / "studies" / "small"))
