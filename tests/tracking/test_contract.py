"""The trackers that come with the package pass the suite that others must pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.mlflow_database import new_database
from tests.tracking.story import told
from tune_tasks.testing.trackers import TrackerContract
from tune_tasks.tracking.files import FilesTracker
from tune_tasks.tracking.mlflow import MLflowTracker
from tune_tasks.tracking.tensorboard import TensorBoardTracker


class TestMLflow(TrackerContract):
    def tracker(self, folder: Path) -> MLflowTracker:
        if not (folder / "mlflow.db").exists():
            folder.mkdir(exist_ok=True)
            new_database(folder)
        return MLflowTracker(uri=f"sqlite:///{folder / 'mlflow.db'}")

    def told(self, folder: Path) -> Any:
        runs = told(f"sqlite:///{folder / 'mlflow.db'}", "test")
        return {name: {**run, "start": None} for name, run in runs.items() if name != "test"}


class TestTensorBoard(TrackerContract):
    def tracker(self, folder: Path) -> TensorBoardTracker:
        pytest.importorskip("tensorboard", reason="it is not installed: make env")
        return TensorBoardTracker(to=str(folder))

    def told(self, folder: Path) -> Any:
        files = (path for path in sorted(folder.rglob("*tfevents*")) if path.stat().st_size)
        return [(str(path.parent.relative_to(folder)), path.read_bytes()) for path in files]


class TestFiles(TrackerContract):
    def tracker(self, folder: Path) -> FilesTracker:
        return FilesTracker(to=str(folder))

    def told(self, folder: Path) -> Any:
        return [path.read_bytes() for path in sorted(folder.rglob("*.csv"))]
