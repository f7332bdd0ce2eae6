"""The README's example is run as it stands: its files are written, and its Python is executed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.ray
@pytest.mark.slow
def test_the_five_minute_tour_works(tmp_path: Path) -> None:
    objective, program = [block for block in blocks("python") if "import tune_tasks" in block]
    (tmp_path / "objective.py").write_text(objective)
    (tmp_path / "study.yaml").write_text(blocks("yaml")[0])
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "learning_rate" in done.stdout
    assert (tmp_path / "studies" / "first" / "log" / "000000000001.jsonl").exists()


def test_every_command_that_is_named_exists() -> None:
    from tune_tasks.cli import _parser

    shown = _parser().format_help()
    for name in re.findall(r"`tune-tasks ([a-z-]+)", README):
        assert name in shown, name


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    for name in re.findall(r"\bmake ([a-z-]+)", README):
        assert re.search(rf"^{name}:", makefile, flags=re.MULTILINE), name
