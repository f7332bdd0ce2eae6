"""What becomes of a run's Ray jobs when it ends before they do, beside a dashboard that answers as told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun as Run
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.states import Cancelling, Crashed, Failed, State

import tune_tasks as tt
from tests.flows.fake_cluster import Cluster, fake_cluster
from tests.flows.running import Deployed, FlowRun, ask, until
from tests.prefect_server import PrefectServer, shared
from tests.studies import write_study
from tune_tasks.attend import begin, job_name
from tune_tasks.execution.jobs import Jobs
from tune_tasks.studies import Study
from tune_tasks_prefect import tune
from tune_tasks_prefect.automations import MOST_RUNS, TAG
from tune_tasks_prefect.hooks import stop_cancelled, stop_jobs, tell_jobs
from tune_tasks_prefect.notes import Note, write_note

pytestmark = pytest.mark.prefect


@pytest.fixture(scope="module")
def server() -> Iterator[PrefectServer]:
    running = shared()
    with temporary_settings({PREFECT_API_URL: running.api, PREFECT_HOME: running.home}):
        yield running


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with fake_cluster() as made:
        yield made


@pytest.fixture
def study(tmp_path: Path, cluster: Cluster) -> Study:
    """A study whose job runs."""
    made = tt.open_study(
        write_study(tmp_path, execution={"runner": "job", "address": cluster.address}), pipeline="prefect/tune/hooks"
    )
    tt.sample(made)
    begin(made, "main-0000", by="a test", jobs=Jobs(cluster.address))
    return made


@pytest.fixture
def run(server: PrefectServer, study: Study) -> FlowRun:
    """A run that has launched the study's job, and runs."""
    made = Deployed.on(server, "hooks").run()
    made.set("RUNNING", force=True)
    write_note(UUID(made.id), study, Note(study.url))
    return made


def told(run: FlowRun) -> Run:
    """The run as the process of the flow knew it when it began."""
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(run.id)).model_copy(update={"labels": {}})


def call(hook: Any, run: FlowRun, state: State[Any], words: str) -> None:
    """Calls a hook, and returns when the server has what it logged."""
    hook(tune, told(run), state)
    until(lambda: words in " ".join(run.logged()), 20)


def test_a_run_that_a_person_cancelled_has_its_job_stopped(run: FlowRun, study: Study, cluster: Cluster) -> None:
    run.set("CANCELLING")
    call(stop_jobs, run, Cancelling(), "is asked to stop; to go on with")
    assert cluster.stopped == [job_name(study.refresh(), 1)]


def test_a_run_whose_runner_was_shut_down_keeps_its_job(run: FlowRun, study: Study, cluster: Cluster) -> None:
    call(stop_jobs, run, Cancelling(message="Runner is shutting down."), f"to end it: tune-tasks stop {study.url}")
    assert cluster.stopped == []


@pytest.mark.parametrize("state", [Crashed(), Failed()])
def test_a_run_that_crashed_or_failed_says_where_its_job_is(
    run: FlowRun, study: Study, cluster: Cluster, state: State[Any]
) -> None:
    call(
        tell_jobs,
        run,
        state,
        f"goes on, and the next run of this flow finds it; to end it: tune-tasks stop {study.url}",
    )
    assert cluster.stopped == []


def test_a_run_that_crashed_as_often_as_it_may_has_its_job_stopped(
    server: PrefectServer, run: FlowRun, study: Study, cluster: Cluster
) -> None:
    ask(server, "PATCH", f"/flow_runs/{run.id}", tags=[TAG])
    for _ in range(run.read()["run_count"], MOST_RUNS):
        run.set("CRASHED", force=True)
        run.set("RUNNING", force=True)
    call(tell_jobs, run, Crashed(), f"crashed {MOST_RUNS} times, and is not run again")
    assert cluster.stopped == [job_name(study.refresh(), 1)]


def test_a_job_that_cannot_be_stopped_is_told_with_the_command_that_does_it(
    run: FlowRun, study: Study, cluster: Cluster
) -> None:
    run.set("CANCELLING")
    cluster.away = True
    call(stop_jobs, run, Cancelling(), "cannot be stopped: ")
    assert f"try: tune-tasks stop {study.url}" in " ".join(run.logged())


def test_a_run_that_waited_to_be_run_again_is_cancelled_with_its_job(
    run: FlowRun, study: Study, cluster: Cluster
) -> None:
    assert not stop_cancelled(UUID(run.id)), "nobody cancelled it"
    assert cluster.stopped == []
    run.set("SCHEDULED", "AwaitingRetry", force=True)
    run.set("CANCELLING")
    assert run.state == "CANCELLED", "Prefect calls no hook then"
    assert stop_cancelled(UUID(run.id))
    assert stop_cancelled(UUID(run.id))
    assert cluster.stopped == [job_name(study.refresh(), 1)]


@pytest.mark.parametrize(("deployment", "stopped"), [("hooks", 1), ("others", 0)])
def test_a_run_that_has_not_launched_yet_stops_only_the_job_of_its_own_study(
    server: PrefectServer, study: Study, cluster: Cluster, deployment: str, stopped: int
) -> None:
    run = Deployed.on(server, deployment).run(study=study.url)
    run.set("RUNNING", force=True)
    run.set("CANCELLING")
    stop_jobs(tune, told(run), Cancelling())
    assert len(cluster.stopped) == stopped


def test_a_note_names_blocks_and_holds_no_secret(server: PrefectServer, run: FlowRun, study: Study) -> None:
    write_note(UUID(run.id), study, Note(study.url, "prod", "gpus"))
    [(name, value)] = [item for item in run.read()["labels"].items() if item[0].startswith("tune_tasks.")]
    assert name == f"tune_tasks.job.{study.state.study[:16]}"
    assert json.loads(value) == {"study": study.url, "store": "prod", "cluster": "gpus"}
