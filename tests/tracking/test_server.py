"""A real `mlflow server`: on SQLite, and on PostgreSQL with artifacts in Ceph's S3; killed, frozen, and back again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

import tune_tasks as tt
from tests.conftest import served
from tests.mlflow_database import new_database
from tests.servers.mlflow import MLflowServer, serve
from tests.studies import write_study
from tests.tracking.story import URL, bring, ids, story, told
from tune_tasks.errors import Unavailable
from tune_tasks.plugins import Plugin
from tune_tasks.study import StudyState
from tune_tasks.tracking import mlflow
from tune_tasks.tracking.following import Trackers
from tune_tasks.tracking.mlflow import MLflowTracker

pytestmark = pytest.mark.slow


@pytest.fixture
def server(mlflow_server: MLflowServer) -> Iterator[MLflowServer]:
    """The server, running, and without a run of an earlier test."""
    if mlflow_server.process is None:
        mlflow_server.start()
    yield mlflow_server
    client = MlflowClient(mlflow_server.url)
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id], max_results=1000):
            client.delete_run(run.info.run_id)


@pytest.fixture
def undisturbed(tmp_path: Path) -> dict[str, Any]:
    """What MLflow tells of the story when nothing goes wrong, and no server is in between."""
    uri = new_database(tmp_path)
    bring(MLflowTracker(uri=uri), story().state)
    return told(uri)


def trackers(state: StudyState, url: str, said: list[str]) -> Trackers:
    spec = state.spec.model_copy(update={"tracking": (Plugin(name="mlflow", uri=url),)})
    return Trackers(spec, said.append)


def test_a_server_shows_what_a_database_does(server: MLflowServer, undisturbed: dict[str, Any]) -> None:
    bring(MLflowTracker(uri=server.url), story().state)
    assert told(server.url) == undisturbed
    for run in ids(MlflowClient(server.url)).values():
        MlflowClient(server.url).delete_run(run)
    bring(MLflowTracker(uri=server.url), story().state)
    assert told(server.url) == undisturbed


def test_a_server_that_was_killed_for_a_while_shows_all_of_it_when_it_is_back(
    server: MLflowServer, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "_LANES", 2)
    state, said = story().state, list[str]()
    shown = trackers(state, server.url, said)
    pieces = iter(range(100))
    assert not shown.update(state, URL, lambda: next(pieces) < 2)  # the study's run, and the first two trials
    server.kill()
    for _ in range(3):
        shown._all[0].due = 0.0
        assert not shown.update(state, URL)
    assert len(said) == 1
    assert said[0].startswith(f"tracking: mlflow: {server.url}: MLflow did not do as asked")
    server.start()
    shown._all[0].due = 0.0
    assert shown.update(state, URL)
    assert told(server.url) == undisturbed


def test_a_server_that_hangs_and_does_everything_late_holds_nothing_twice(
    server: MLflowServer, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    state = story().state
    work = MLflowTracker(uri=server.url).update(state, URL)
    next(work)  # the study's run is there
    with server.frozen(), pytest.raises(Unavailable):
        next(work)  # what it asked of the server, the server will do later
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    bring(MLflowTracker(uri=server.url), state)
    bring(MLflowTracker(uri=server.url), state)  # whatever came in between is tidied up
    assert told(server.url) == undisturbed


def test_two_trackers_at_once_on_a_server_leave_one_run_for_each_trial(
    server: MLflowServer, undisturbed: dict[str, Any]
) -> None:
    from threading import Thread

    state = story().state
    threads = [Thread(target=bring, args=(MLflowTracker(uri=server.url), state)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told(server.url) == undisturbed


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.servers.postgres import serve as serve_postgres

    yield from served(lambda _: serve_postgres(), tmp_path_factory)


def test_on_postgresql_with_artifacts_in_a_bucket_a_study_is_shown_and_its_model_loads(
    postgres: Any, radosgw_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import pyfunc

    from tests.servers import ACCESS, BUCKET, SECRET

    backend = f"postgresql+psycopg://{ACCESS}:{SECRET}@127.0.0.1:{postgres.port}/studies"
    bucket = f"s3://{BUCKET}/mlflow"
    environment = {**radosgw_server.environment, "MLFLOW_S3_ENDPOINT_URL": radosgw_server.url}
    with serve(tmp_path / "server", backend, bucket, environment) as server:
        promotion = {"registry": server.url, "loader": "objective:load"}
        spec = write_study(tmp_path, promotion=promotion, budget={"trials": 3, "concurrency": 1})
        model = tt.promote_best(tt.tune(spec))
        runs = told(server.url, "small")
        client = MlflowClient(server.url)
        best = client.get_model_version_by_alias("small", "champion")
        monkeypatch.setattr("mlflow.tracking.get_tracking_uri", lambda: server.url)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        loaded = pyfunc.load_model(f"models:/small/{best.version}")
    assert set(runs) == {"small", "trial 0", "trial 1", "trial 2"}
    assert runs["small"]["tags"]["tune_tasks.model"] == model.uri
    assert best.run_id is not None
    assert "predict" in dir(loaded)
    monkeypatch.undo()
    from tune_tasks.store import open_objects

    for name, value in radosgw_server.environment.items():
        monkeypatch.setenv(name, value)
    assert any("weight.json" in key for key in open_objects(bucket).list(""))


def test_a_killed_server_of_the_tests_leaves_no_process(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        assert server.process is not None
        pid = server.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert children
    lines = [Path(f"/proc/{child}/cmdline") for child in children]
    assert not any(line.exists() and line.read_bytes() for line in lines)  # of a zombie it is empty
