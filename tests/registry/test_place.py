"""Which registry a study promotes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_tasks.errors import ConfigError
from tune_tasks.registry import default_uri


@pytest.fixture(autouse=True)
def _no_server_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_spec_comes_first_then_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert default_uri("http://named", str(tmp_path)) == "http://named"
    assert default_uri(None, str(tmp_path)) == "http://server"


def test_a_local_store_has_a_database_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_uri(None, "./studies") == f"sqlite:///{tmp_path}/studies/mlflow.db"
    assert default_uri(None, f"file://{tmp_path}") == f"sqlite:///{tmp_path}/mlflow.db"


def test_none_means_no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_uri(None, "memory://studies") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert default_uri("none", "s3://bucket/studies") is None


def test_a_remote_store_without_a_registry_is_refused_with_the_remedy_and_without_the_password() -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI") as caught:
        default_uri(None, "s3://key:secret@bucket/studies")
    assert "secret" not in str(caught.value)
