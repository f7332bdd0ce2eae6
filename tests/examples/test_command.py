"""The command example: a script without any import of ours is tuned by the command line."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "command"
TUNE_TASKS = str(Path(sys.executable).with_name("tune-tasks"))


def run(*words: str) -> subprocess.CompletedProcess[str]:
    elsewhere = {**os.environ, "PATH": "/usr/bin:/bin"}
    return subprocess.run([TUNE_TASKS, *words], capture_output=True, text=True, check=False, env=elsewhere)


def answer(*words: str) -> Any:
    done = run(*words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_script_imports_nothing_but_the_standard_library() -> None:
    tree = ast.parse((EXAMPLE / "train.py").read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= sys.stdlib_module_names
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]


def test_the_study_runs_and_stops_bad_trials_early(tmp_path: Path) -> None:
    done = run(
        "run",
        str(EXAMPLE / "study.yaml"),
        "--set",
        "execution.runner=inline",
        "--set",
        f"store={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    status = answer("status", str(tmp_path / "command"))
    assert status["done"] is True
    assert sum(status["trials"].values()) == 12
    assert status["trials"]["completed"] >= 1
    assert status["trials"]["pruned"] >= 4, "the script was ended before its last epoch"
    assert status["best"]["value"] < 0.5
    assert "training with Namespace(lr=" in run("logs", str(tmp_path / "command"), "0").stdout
    assert "of python train.py --lr {lr} --l2 {l2} --epochs 9, tpe" in run("log", str(tmp_path / "command")).stdout
