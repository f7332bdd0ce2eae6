"""What killed processes leave on the disk is removed by those that come after, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tune_tasks.execution.scratch import sweep

PROGRAM = """
import sys
from tune_tasks.execution.scratch import new_folder
print(new_folder("attempt"), flush=True)
sys.stdin.read()
"""


def start(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that made a folder and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_process_that_ends_removes_its_home(tmp_path: Path) -> None:
    process, made = start(tmp_path)
    assert made.is_dir()
    process.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_the_home_of_a_killed_process_is_removed_by_the_next_and_that_of_a_living_one_is_kept(tmp_path: Path) -> None:
    (tmp_path / "tune-tasks-not-ours").mkdir()
    killed, left = start(tmp_path)
    killed.kill()
    killed.communicate()
    assert left.is_dir()
    living, kept = start(tmp_path)
    assert not left.parent.exists()
    sweep(tmp_path)
    assert kept.is_dir()
    living.communicate("")
    assert [path.name for path in tmp_path.iterdir()] == ["tune-tasks-not-ours"]
