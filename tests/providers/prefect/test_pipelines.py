"""Whose a study is, and which rounds a flow run gets, with the deployments of a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

import tune_tasks as tt
from tests.flows.running import Deployed, FlowRun
from tests.prefect_server import PrefectServer, shared
from tests.studies import write_study
from tune_tasks_prefect import sample, tune
from tune_tasks_prefect.pipelines import MAIN, pipeline_name, run_name

pytestmark = pytest.mark.prefect


@pytest.fixture(scope="module")
def server() -> Iterator[PrefectServer]:
    running = shared()
    with temporary_settings({PREFECT_API_URL: running.api, PREFECT_HOME: running.home}):
        yield running


def execute(run: FlowRun, executed: Any = tune) -> Any:
    """Executes a deployment's run in this process, as its runner would; gives the state that it came to."""
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(UUID(run.id))
    return run_flow(executed, flow_run=found, return_type="state")


def test_a_run_of_a_deployment_goes_by_its_name_and_one_that_someone_tries_out_by_none(server: PrefectServer) -> None:
    @flow
    def inner() -> tuple[str | None, str]:
        return pipeline_name(), run_name()

    @flow(name="tune")
    def outer() -> Any:
        return pipeline_name(), run_name(), *inner()

    assert (pipeline_name(), run_name()) == (None, MAIN)
    assert outer() == (None, MAIN, None, MAIN)
    state = execute(Deployed.on(server, "nightly").run(), outer)
    name, run, inside, inner_run = state.result()
    assert name == inside == "prefect/tune/nightly"
    assert run == f"tune-{str(state.state_details.flow_run_id).replace('-', '')[-12:]}"
    assert inner_run.startswith("inner-")


def test_a_second_deployment_on_the_study_is_refused_with_whose_it_is(server: PrefectServer, tmp_path: Path) -> None:
    spec = str(write_study(tmp_path))
    first = execute(Deployed.on(server, "mine").run(study=spec, rounds_limit=1))
    assert first.is_completed(), first
    study = tt.open_study(spec)
    assert study.state.pipeline == "prefect/tune/mine"
    head = study.log.head
    other = execute(Deployed.on(server, "yours").run(study=spec))
    error = other.result(raise_on_failure=False)
    assert other.is_failed()
    assert isinstance(error, tt.ConfigError)
    assert "carried on by the pipeline 'prefect/tune/mine', and this is 'prefect/tune/yours'" in str(error)
    assert "say pipeline='prefect/tune/mine'" in str(error)
    study.refresh()
    assert study.log.head == head
    shared_run = Deployed.on(server, "yours").run(study=spec, rounds_limit=1, pipeline="prefect/tune/mine")
    assert execute(shared_run).is_completed()
    assert sample(spec)["study"] == study.url, "who tries something out is not refused"


def test_a_run_that_is_run_again_gets_the_rounds_that_it_had_and_the_next_run_goes_on(
    server: PrefectServer, tmp_path: Path
) -> None:
    spec = str(write_study(tmp_path))
    nightly = Deployed.on(server, "rounds")
    first = nightly.run(study=spec, rounds_limit=1)
    told = execute(first).result()
    study = tt.open_study(spec)
    rounds = dict(study.state.rounds)
    assert list(rounds.values()) == [1]
    first.again()
    assert execute(first).result() == told
    assert study.refresh().rounds == rounds
    assert execute(nightly.run(study=spec, rounds_limit=1)).is_completed()
    assert sorted(study.refresh().rounds.values()) == [1, 1]


def test_without_a_limit_every_run_goes_on_with_the_rounds_of_the_study(server: PrefectServer, tmp_path: Path) -> None:
    spec = str(write_study(tmp_path))
    state = execute(Deployed.on(server, "whole").run(study=spec))
    assert state.result()["done"]
    assert list(tt.open_study(spec).state.rounds) == [MAIN]
