"""Runs the provider's flow `tune` as a user does: in a process of its own, against the test session's real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.prefect_server import shared

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, sys
from tune_tasks_prefect import tune
tune(sys.argv[1], **json.loads(sys.argv[2]))
"""


def run_flow(spec_path: Path | str, **parameters: Any) -> None:
    """Runs the flow `tune` for a spec file to its end; raises `AssertionError` with its output where it fails."""
    finish(start_flow(spec_path, **parameters))


def start_flow(spec_path: Path | str, *, seconds: float = 0.0, **parameters: Any) -> subprocess.Popen[str]:
    """Starts the flow and returns at once; `seconds` is how long each step of a trial takes (see `tests.studies`)."""
    return start("-c", PROGRAM, str(spec_path), json.dumps(parameters), STEP_SECONDS=str(seconds))


def start(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    """Starts Python against the test session's server."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**shared().environment, **environment},
        cwd=cwd or ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], seconds: float = 240.0) -> str:
    """Waits for a process to end well and returns what it printed; ends it where it takes too long."""
    try:
        output, _ = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0, output
    return output
