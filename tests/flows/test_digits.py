"""The flow that people copy: it tunes, promotes, and hands a model that works to the task after it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import tune_tasks as tt
from tests.flows.running import ROOT, finish, start
from tests.prefect_server import shared

pytestmark = pytest.mark.prefect

PROGRAM = """
import runpy, sys
digits = runpy.run_path("flows/digits.py")["digits"]
print("accuracy", digits(sys.argv[1]))
"""


def small_digits(folder: Path, **changes: Any) -> Path:
    """The digits example with four trials of up to three epochs, run in one process."""
    shutil.copytree(ROOT / "examples" / "digits", folder, ignore=shutil.ignore_patterns("studies", "__pycache__"))
    path = folder / "study.yaml"
    spec = yaml.safe_load(path.read_text())
    spec |= {
        "store": str(folder / "studies"),
        "sampler": {"name": "random", "seed": 7},
        "scheduler": {"name": "asha", "min_budget": 1, "max_budget": 3, "reduction_factor": 3},
        "budget": {"trials": 4, "concurrency": 1},
        "execution": {"runner": "inline"},
    }
    spec["promotion"] |= {"registry": "none"}
    path.write_text(yaml.safe_dump({**spec, **changes}))
    return path


def flow(spec: Path) -> subprocess.Popen[str]:
    return start("-c", PROGRAM, str(spec))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_digits(tmp_path_factory.mktemp("digits") / "digits")


@pytest.fixture(scope="module")
def printed(spec: Path) -> str:
    return finish(flow(spec))


def test_the_digits_flow_ends_completed_with_a_model_that_was_checked(spec: Path, printed: str) -> None:
    study = tt.open_study(str(spec.parent / "studies" / "digits-mlp"))
    assert study.state.done
    assert len(study.trials) == 4
    [model] = study.state.promotions
    accuracy = model["evaluation"]["test_accuracy"]
    assert accuracy > 0.5
    assert f"accuracy {accuracy}" in printed
    [run] = [row for row in shared().rows("flow_runs") if row["parameters"].get("study") == str(spec)]
    assert run["state_type"] == "COMPLETED"

    def names() -> set[str]:
        rows = shared().rows("task_runs", flow_runs={"id": {"any_": [run["id"]]}})
        return {row["name"].split()[0].split("-")[0] for row in rows}

    shared().wait_for(lambda: {"sample", "launch_trials", "evaluate_and_prune", "promote_best", "check"} <= names())


def test_a_model_that_is_not_what_was_promoted_stops_the_flow(spec: Path, printed: str) -> None:
    [path] = (spec.parent / "studies" / "digits-mlp" / "models").glob("*/model.json")
    manifest = json.loads(path.read_text())
    manifest["evaluation"]["test_accuracy"] = 0.999
    path.write_text(json.dumps(manifest))
    again = flow(spec)
    output, _ = again.communicate(timeout=120)
    assert again.returncode != 0
    assert "was promoted with 0.9990" in output
