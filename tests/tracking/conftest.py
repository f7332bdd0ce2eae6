"""One MLflow server for all tests that need one, and a small study whose trials last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.conftest import served
from tests.studies import SPEC
from tune_tasks.spec import StudySpec
from tune_tasks.studies import Study


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.servers.mlflow import serve

    yield from served(serve, tmp_path_factory)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Study]:
    """Opens a study of four short trials whose objective may be any function."""

    def open_one(objective: Any, **changes: Any) -> Study:
        given = {"store": str(tmp_path / "studies"), "scheduler": "none", "budget": {"trials": 4, "concurrency": 1}}
        return tt.open_study(StudySpec(**{**SPEC, **given, "objective": objective, **changes}))

    return open_one
