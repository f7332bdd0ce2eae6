"""A work pool with a real worker, and a server with PostgreSQL: runs by schedule, and runs that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.providers.prefect.healing import client, command, healing
from tests.servers import ACCESS, SECRET
from tests.servers.processes import start, stop
from tests.studies import write_study
from tune_tasks.store.credentials import using
from tune_tasks.studies import Study, find_study
from tune_tasks_prefect.automations import MISSED, MOST_RUNS, TAG, automations, settle
from tune_tasks_prefect.blocks import StudyStore, variables

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

POOL = "tests"


@contextmanager
def worker(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of the pool, ended by its id."""
    arguments = ["-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", uuid4().hex]
    quick = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_WORKER_PREFETCH_SECONDS": "2"}
    process = start([sys.executable, *arguments], home / "worker.log", environment={**healing().environment, **quick})
    try:
        yield process
    finally:
        stop(process)


@pytest.fixture
def store(moto_server: Any) -> str:
    """A block with the credentials of a bucket, which no environment here has."""
    name = f"b{uuid4().hex[:8]}"
    with temporary_settings({PREFECT_API_URL: healing().api}):
        StudyStore(
            url=moto_server.place(),
            aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
            aws_endpoint_url=moto_server.url,
            aws_region="us-east-1",
        ).save(name)
    return name


@pytest.fixture
def deployed(tmp_path: Path, store: str) -> Iterator[Callable[..., str]]:
    """Deploys the flow `tune` for a small study in the bucket; gives the name of the deployment."""
    name = f"d{uuid4().hex[:8]}"

    def deploy(*, seconds: float = 0.0, **more: Any) -> str:
        write_study(tmp_path, store="s3://replaced/by-the-block")
        pool = {"name": POOL, "job_variables": {"env": {"STEP_SECONDS": str(seconds)} | HEARTBEAT}}
        parameters = {"study": "study.yaml", "store": store}
        one = {"name": name, "entrypoint": "tune_tasks_prefect.flows.tune", "parameters": parameters}
        file = tmp_path / "prefect.yaml"
        file.write_text(yaml.safe_dump({"deployments": [{**one, "work_pool": pool, "tags": [TAG], **more}]}))
        done = command("setup", "--file", str(file), **HEARTBEAT)
        assert done.returncode == 0, done.stderr
        return f"tune/{name}"

    yield deploy
    with client() as api:
        api.delete_deployment(api.read_deployment_by_name(f"tune/{name}").id)


HEARTBEAT = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
SILENCE = timedelta(seconds=45)


def study_of(store: str) -> Study | None:
    """The study in the bucket, as far as it is."""
    with temporary_settings({PREFECT_API_URL: healing().api}):
        known = variables(store)
        with client() as api:
            place = api.read_block_document_by_name(store, "study-store").data["url"]
    with using(known):
        return find_study(f"{place}/small")


def runs(deployment: str) -> list[dict[str, Any]]:
    name = {"name": {"any_": [deployment.partition("/")[2]]}}
    return healing().rows("flow_runs", deployments=name, sort="EXPECTED_START_TIME_ASC")


def test_a_deployment_runs_by_schedule_on_a_worker_with_the_store_of_a_block(
    tmp_path: Path, store: str, deployed: Callable[..., str]
) -> None:
    name = deployed(schedules=[{"interval": 5}], concurrency_limit={"limit": 1, "collision_strategy": "ENQUEUE"})
    with worker(tmp_path):
        [run, *_] = healing().wait_for(
            lambda: [run for run in runs(name) if run["state_type"] in {"COMPLETED", "FAILED", "CRASHED"}], 90
        )
    assert (run["state_type"], run["auto_scheduled"], run["run_count"]) == ("COMPLETED", True, 1)
    study = study_of(store)
    assert study is not None
    assert study.state.done
    assert study.state.promotions


def test_a_run_that_is_killed_alone_and_then_with_its_worker_goes_on_where_the_study_stands(
    tmp_path: Path, store: str, deployed: Callable[..., str]
) -> None:
    name = deployed(seconds=0.3)
    with client() as api:  # the least heartbeat is 30 s, and not to wait for three of them here
        for automation in automations(SILENCE / MISSED):
            settle(api, automation)
    with worker(tmp_path) as first:
        run = begin(name)
        under_way(store, reports=1)
        assert kill(run)
        under_way(store, reports=reports_of(store) + 2)
        first.kill()  # else it would say that the process has gone
        first.wait()
        kill(run)  # where it has not gone with its worker
        done = study_of(store)
    assert done is not None
    assert not done.state.done
    with worker(tmp_path):
        ended(run)
    assert sampled_once(store)
    with client() as api:
        states = sorted(api.read_flow_run_states(run), key=lambda state: state.timestamp)
        begun = api.read_flow_run(run).run_count
    before = [states[index - 1] for index, state in enumerate(states) if state.name == "AwaitingRetry"]
    assert {state.name for state in before} == {"Crashed"}
    assert len(before) == begun - 1 <= MOST_RUNS - 1
    assert "SIGKILL" in str(before[0].message)
    assert f"No heartbeat for {SILENCE}: its process is taken for killed" in [state.message for state in before[1:]]


def begin(deployment: str) -> Any:
    with client() as api:
        return api.create_flow_run_from_deployment(api.read_deployment_by_name(deployment).id).id


def kill(run: Any) -> int:
    """Kills the processes of a flow run, by the id in their environment, as who runs out of memory; gives how many."""
    killed = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"PREFECT__FLOW_RUN_ID={run}".encode() in (folder / "environ").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)
                killed += 1
    return killed


def under_way(store: str, reports: int) -> None:
    """Returns when the study has so many reports."""
    healing().wait_for(lambda: reports_of(store) >= reports, 90)


def reports_of(store: str) -> int:
    study = study_of(store)
    return sum(trial.budget for trial in study.trials) if study is not None else 0


def ended(run: Any, seconds: float = 120.0) -> None:
    def state() -> Any:
        with client() as api:
            found = api.read_flow_run(run).state
        return found if found.type.value in {"COMPLETED", "FAILED"} else None

    final = healing().wait_for(state, seconds)
    assert final.type.value == "COMPLETED", final.message


def sampled_once(store: str) -> bool:
    study = study_of(store)
    assert study is not None
    return study.state.done and [trial.number for trial in study.trials] == list(range(9))
