"""MLflow is asked quietly, and what goes wrong says what to do."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.registry import Registry
from tune_tasks.registry.client import Connection, quiet


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("nonsense://x", "refuses"),
        ("file:///tmp/mlruns", "refuses"),
        ("sqlite:////proc/nowhere/mlflow.db", "cannot be used as a database"),
        ("mssql://u:secret@127.0.0.1:9/db", "needs a package"),
    ],
)
def test_a_uri_that_cannot_work_is_a_mistake_in_the_spec(uri: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Connection(uri).experiment("any", "/studies/any")
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("a letter to my landlord")
    with pytest.raises(ConfigError, match="not a database"):
        Registry(f"sqlite:///{tmp_path / 'mlflow.db'}").champion("any", "champion")
    assert (tmp_path / "mlflow.db").read_text() == "a letter to my landlord"


def test_a_server_that_is_down_is_no_missing_champion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Unavailable):
        Registry("http://127.0.0.1:9").champion("any", "champion")


def test_a_name_that_mlflow_does_not_take_is_a_mistake_in_the_spec(uri: str) -> None:
    with pytest.raises(ConfigError, match="alias"):
        Registry(uri).move_alias("any", "no/alias", "1")
    with pytest.raises(ConfigError, match="quotation"):
        Registry(uri).register(_model("it's"), Path())


def _model(name: str):
    from tune_tasks.registry import ModelArtifact

    return ModelArtifact(
        promoted=True,
        reason="",
        name=name,
        alias="champion",
        metric="loss",
        mode="min",
        study="/s",
        study_id="id",
        position=1,
        spec_digest="",
        key="key",
        created=0.0,
    )


def test_artifacts_of_a_database_lie_beside_it(uri: str, tmp_path: Path) -> None:
    connection = Connection(uri)
    connection.experiment("any", "s3://bucket/studies/any")
    with connection.calls() as client:
        found = client.get_experiment_by_name("any")
    assert found is not None
    assert found.artifact_location == f"file://{tmp_path}/mlartifacts"


def test_two_at_once_make_one_database_and_one_experiment(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(Connection(uri).experiment("any", "/s"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert len(set(found)) == 1


def test_an_experiment_that_someone_else_made_in_the_meantime_is_used(uri: str) -> None:
    connection = Connection(uri)
    first = connection.experiment("any", "/s")
    with connection.calls() as client:
        assert connection._create(client, "any", None) == first


def test_the_settings_and_log_levels_of_the_process_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    logging.getLogger("mlflow").setLevel(logging.INFO)
    before = dict(os.environ)
    with quiet():
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
        assert not logging.getLogger("mlflow").isEnabledFor(logging.WARNING)
    assert dict(os.environ) == before
    assert logging.getLogger("mlflow").level == logging.INFO
