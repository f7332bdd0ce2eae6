"""New MLflow databases for tests: MLflow makes its tables once for each run of pytest, which takes seconds."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from tune_tasks.registry.client import Connection


def new_database(folder: Path) -> str:
    """Puts an empty MLflow database into a folder and returns its URI."""
    shutil.copy(_template(), folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


@functools.cache
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tune-tasks-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with Connection(f"sqlite:///{folder / 'empty.db'}").calls():
        return folder / "empty.db"
