"""The retraining DAG in a real Airflow on PostgreSQL, from its schedule to what is deployed, with its own defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import tune_tasks as tt
from tests.airflow_home import BUNDLES
from tests.airflow_standalone import Airflow, DagRun, standalone, until
from tests.servers import ACCESS, SECRET, Missing
from tests.servers.postgres import PostgresServer, serve

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]  # all of it, and Ray starts for each round

DAG = "retrain"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    try:
        with serve() as server:
            yield server
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def on_postgres(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    where = urlsplit(postgres.url)
    database = f"postgresql+psycopg://{ACCESS}:{SECRET}@{where.netloc}{where.path}"
    settings = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": database}
    home = tmp_path_factory.mktemp("airflow")
    with standalone(home, {"project": BUNDLES["project"]}, settings) as started:
        yield started


def test_the_schedule_tunes_promotes_trains_on_all_data_and_deploys(on_postgres: Airflow) -> None:
    until(lambda: DAG in {dag["dag_id"] for dag in on_postgres.ask("GET", "/dags")["dags"]})
    on_postgres.ask("PATCH", f"/dags/{DAG}", {"is_paused": False})
    runs = f"/dags/{DAG}/dagRuns"
    until(lambda: bool(on_postgres.ask("GET", runs)["total_entries"]))
    (begun,) = on_postgres.ask("GET", runs)["dag_runs"]
    assert begun["run_type"] == "scheduled"
    run = DagRun(on_postgres, DAG, begun["dag_run_id"])
    assert run.finish(600) == "success"

    study = tt.open_study(run.result("begin")["study"])
    assert Path(study.url).is_relative_to(on_postgres.home)
    assert study.state.done
    assert study.spec.data == begun["data_interval_start"][:10]
    assert len(study.trials) == 32
    final = tt.open_study(run.result("train_final")["final"])
    assert tt.history(study)[-1].champion.study == final.url
    deployed = run.result("deploy")
    assert deployed["deployed"]
    assert json.loads((Path(deployed["url"]) / "current.json").read_text())["version"] == deployed["version"]
    assert run.result("check")["accuracy"] > 0.8
