"""The tables of a study are kept whole and up to date."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.tracking.story import URL, bring, story
from tune_tasks.errors import ConfigError
from tune_tasks.tracking.files import FilesTracker


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_trials_and_reports_are_there_as_csv_and_follow_the_study(tmp_path: Path) -> None:
    history = story()
    tracker = FilesTracker(to=str(tmp_path))
    bring(tracker, history.state)
    trials, reports = rows(tmp_path / "tracked/trials.csv"), rows(tmp_path / "tracked/reports.csv")
    assert [trial["state"] for trial in trials] == ["completed", "pruned", "failed", "paused", "running", "queued"]
    assert [(row["trial"], row["step"], row["metrics.loss"]) for row in reports][:2] == [
        ("0", "1", "0.5"),
        ("0", "2", "0.25"),
    ]
    history.tell(4, [2], [{"loss": 0.3}])
    bring(tracker, history.state)
    assert len(rows(tmp_path / "tracked/reports.csv")) == len(reports) + 1


def test_the_same_tables_come_as_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    bring(FilesTracker(to=str(tmp_path), format="parquet"), story().state)
    table = parquet.read_table(tmp_path / "tracked/trials.parquet")
    assert table.column("state").to_pylist()[:2] == ["completed", "pruned"]
    assert not list(tmp_path.rglob("*.csv"))


def test_updating_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    def whole() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "tracked").iterdir()}

    state = story().state
    bring(FilesTracker(to=str(tmp_path)), state)
    before = whole()
    bring(FilesTracker(to=str(tmp_path)), state)
    assert whole() == before


def test_a_database_holds_no_tables_and_the_study_itself_neither(tmp_path: Path) -> None:
    state = story().state
    with pytest.raises(ConfigError, match=r"tracking\.files\.to: missing; postgresql://host/db is a database"):
        FilesTracker().place(state, "postgresql://user:secret@host/db/tracked")
    with pytest.raises(ConfigError, match="inside the study"):
        bring(FilesTracker(to=f"{URL}/tables"), state)
