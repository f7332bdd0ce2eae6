"""The provider's tasks and its flow against a real Prefect server: they go on, give up and tell as they should."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.states import Failed

import tune_tasks as tt
import tune_tasks_prefect as provider
from tests.flows.running import finish, run_flow, start_flow
from tests.prefect_server import PrefectServer, shared
from tests.studies import SPEC, events, story, write_study
from tune_tasks.errors import CorruptLog, Fenced, NothingToPromote, StudyNotFound, TuneError, Unavailable
from tune_tasks.events import Planned
from tune_tasks.steps import MAIN, STEPS
from tune_tasks.store import DEADLINE, open_objects

pytestmark = pytest.mark.prefect

TASKS = (
    provider.sample,
    provider.launch_trials,
    provider.evaluate_and_prune,
    provider.promote_best,
    provider.train_final,
    provider.extend,
    provider.deploy,
    provider.undeploy,
)


OPENING = {"study", "overrides", "amend", "pipeline", "store", "cluster", "limit"}
"""What a task takes beside the step's own options; the last two only where it launches."""


@pytest.fixture(scope="module")
def server() -> Iterator[PrefectServer]:
    running = shared()
    with temporary_settings({PREFECT_API_URL: running.api, PREFECT_HOME: running.home}):
        yield running


@pytest.fixture
def secret() -> str:
    return f"secret-{uuid4().hex}"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, secret: str) -> Iterator[ThreadedMotoServer]:
    """A real S3 server with one empty bucket; what is in it outlives a stop and a start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    environment = {"ENDPOINT_URL": endpoint, "ACCESS_KEY_ID": "t", "SECRET_ACCESS_KEY": secret, "REGION": "us-east-1"}
    for name, value in environment.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    running = ThreadedMotoServer(port=port, verbose=False)
    running.start()
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/tuning", method="PUT")).close()
    yield running
    running.stop()


def run(spec: Path | str | dict[str, Any], **parameters: Any) -> tuple[str, Any, Any]:
    """Runs the flow `tune` in this process; gives its run's id, its state and what it returned or raised."""
    state = provider.tune(spec, return_state=True, **parameters)
    return str(state.state_details.flow_run_id), state, state.result(raise_on_failure=False)


def task_runs(server: PrefectServer, flow_run: str, names: set[str]) -> dict[str, dict[str, Any]]:
    """The task runs of a flow run by name, once the server has recorded as over all those that are asked for."""

    def over() -> dict[str, dict[str, Any]] | None:
        rows = server.rows("task_runs", flow_runs={"id": {"any_": [flow_run]}})
        found = {row["name"]: row for row in rows if row["state_type"] in {"COMPLETED", "FAILED"}}
        return found if names <= set(found) else None

    found: dict[str, dict[str, Any]] = server.wait_for(over)
    return found


def logged(server: PrefectServer, flow_run: str, step: str) -> list[str]:
    """What the task runs of a step logged, without Prefect's own lines."""
    rows = server.rows("logs", logs={"flow_run_id": {"any_": [flow_run]}}, sort="TIMESTAMP_ASC", limit=200)
    ids = {row["id"] for row in server.rows("task_runs", flow_runs={"id": {"any_": [flow_run]}}) if step in row["name"]}
    return [row["message"] for row in rows if row["task_run_id"] in ids and "Finished in state" not in row["message"]]


def segments(url: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (url / "log").glob("*.jsonl")}


def sampled(url: str) -> list[int]:
    return [p.number for event in events(url) if isinstance(event, Planned) for p in event.proposals]


def test_there_is_a_task_for_each_step_of_the_table() -> None:
    assert [task.name for task in TASKS] == list(STEPS)
    for each in TASKS:
        taken = [*inspect.signature(each.fn).parameters]
        assert set(taken) - OPENING == set(STEPS[each.name].options), each.name
        assert set(taken) >= OPENING - {"cluster", "limit"}, each.name
    assert {task.fn.__kwdefaults__["run"] for task in (provider.sample, provider.promote_best)} == {MAIN}


def test_each_task_has_a_twin_for_async_flows_that_is_the_same_but_for_the_await() -> None:
    for each in TASKS:
        twin = getattr(provider, f"a{each.name}")
        assert twin is each.twin
        assert twin.isasync
        assert not each.isasync
        assert inspect.signature(twin.fn) == inspect.signature(each.fn)
        for name in ("name", "tags", "retries", "retry_delay_seconds", "retry_condition_fn", "cache_policy"):
            assert getattr(twin, name) == getattr(each, name), name
        assert each.tags == {"tune_tasks"}


@pytest.mark.parametrize(
    ("error", "worth"),
    [
        (Unavailable("the store did not answer"), True),
        (OSError("a worker of Prefect lost its connection"), True),
        (tt.ConfigError("space: missing"), False),
        (StudyNotFound("no study"), False),
        (CorruptLog("segment 3"), False),
        (NothingToPromote("no trial has a value"), False),
        (Fenced("a newer driver works"), False),
        (TuneError("a class of error that is newer than this provider"), False),
    ],
)
def test_retries_depend_on_the_class_of_the_error(error: Exception, worth: bool) -> None:
    assert provider.worth_retrying(None, None, Failed(data=error)) is worth


def test_the_retry_condition_is_a_plain_function_which_every_prefect_can_call() -> None:
    assert inspect.isfunction(provider.worth_retrying)
    assert all(task.retry_condition_fn is provider.worth_retrying and task.retries == 3 for task in TASKS)


def test_prefect_remembers_no_result_so_that_none_can_be_taken_for_the_study_s() -> None:
    assert all(task.cache_policy == NO_CACHE and not task.persist_result for task in TASKS)


def test_the_collection_is_found_by_prefect_and_loads_nothing_heavy() -> None:
    program = """
import sys
from importlib.metadata import entry_points
import prefect.blocks.core
from prefect import flow, task
[point] = [p for p in entry_points(group="prefect.collections") if p.name == "tune_tasks_prefect"]
before = set(sys.modules)
point.load()
heavy = {"ray", "mlflow", "optuna", "pandas", "s3fs", "scipy", "numpy", "tune_tasks.steps"}
print(sorted(heavy & (set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_flow_runs_a_study_to_its_end_and_tells_it_step_by_step(server: PrefectServer, tmp_path: Path) -> None:
    flow_run, state, result = run(str(write_study(tmp_path)))
    assert state.is_completed(), state
    study = tt.open_study(result["study"])
    assert study.state.done
    assert result["best"] == study.best.number
    assert result["model"]["promoted"]
    assert result["model"]["key"].startswith("main-")
    names = [f"{step} main-{number:04d}" for number in range(study.state.rounds["main"]) for step in list(STEPS)[1:3]]
    runs = task_runs(server, flow_run, {*names, "sample main", "promote_best main"})
    assert {row["run_count"] for row in runs.values()} == {1}
    [final] = server.wait_for(lambda: logged(server, flow_run, "promote_best"))
    assert result["model"]["reason"] in final
    told = [line for line in logged(server, flow_run, "launch_trials") if line.startswith("Batch main-")]
    assert len(told) == study.state.rounds["main"]


def test_a_run_that_stopped_early_is_finished_by_the_next_which_also_promotes(
    server: PrefectServer, tmp_path: Path
) -> None:
    spec = write_study(tmp_path)
    _, first, early = run(str(spec), rounds_limit=1)
    assert first.is_completed()
    assert (early["done"], early["model"]) == (False, None)
    _, _, late = run(str(spec))
    assert late["done"]
    assert late["model"]["promoted"]
    told = story(late["study"])
    _, _, again = run(late["study"])
    assert again["model"] == late["model"]
    assert story(late["study"]) == told
    assert sampled(late["study"]) == list(range(9))


def test_a_limit_of_no_rounds_is_refused_before_anything_is_created(server: PrefectServer, tmp_path: Path) -> None:
    _, state, error = run(str(write_study(tmp_path)), rounds_limit=0)
    assert state.is_failed()
    assert "rounds_limit" in str(error)
    assert not (tmp_path / "studies").exists()


def test_a_flow_killed_in_the_middle_goes_on_when_it_is_run_again(server: PrefectServer, tmp_path: Path) -> None:
    spec = write_study(tmp_path / "killed")
    url = tmp_path / "killed" / "studies" / "small"
    process = start_flow(spec, seconds=0.05)
    limit = time.monotonic() + 60
    while process.poll() is None and len(segments(url)) < 8 and time.monotonic() < limit:
        time.sleep(0.02)
    assert process.poll() is None, finish(process)
    process.kill()
    process.communicate()
    committed = segments(url)
    assert not tt.open_study(str(url)).state.done
    run_flow(spec)
    after = segments(url)
    assert {name: after[name] for name in committed} == committed
    assert sampled(str(url)) == list(range(9))
    whole = tt.tune(write_study(tmp_path / "whole"))
    study = tt.open_study(str(url))
    assert study.state.done
    assert [(t.state, t.value, t.budget) for t in study.trials] == [(t.state, t.value, t.budget) for t in whole.trials]


def test_a_flow_run_that_prefect_retries_gets_the_batch_that_it_had(server: PrefectServer, tmp_path: Path) -> None:
    spec = str(write_study(tmp_path))
    attempts: list[dict[str, Any]] = []

    @flow(retries=1)
    def stumbling() -> dict[str, Any]:
        attempts.append(provider.launch_trials(spec, provider.sample(spec)))
        if len(attempts) == 1:
            raise OSError("the worker lost its connection")
        return provider.evaluate_and_prune(spec, attempts[-1])

    verdict = stumbling()
    assert attempts[0] == attempts[1]
    assert sampled(verdict["study"]) == list(range(4))


def test_a_spec_that_differs_from_the_study_fails_at_once_and_is_not_retried(
    server: PrefectServer, tmp_path: Path
) -> None:
    run(str(write_study(tmp_path)), rounds_limit=1)
    flow_run, state, error = run(str(write_study(tmp_path, metric="weight")))
    assert state.is_failed()
    assert isinstance(error, tt.ConfigError)
    assert "metric is 'weight' here and 'loss' in the study" in str(error)
    assert task_runs(server, flow_run, {"sample main"})["sample main"]["run_count"] == 1


def test_a_log_that_cannot_be_read_stops_the_flow_and_runs_nothing(server: PrefectServer, tmp_path: Path) -> None:
    _, _, early = run(str(write_study(tmp_path)), rounds_limit=1)
    segments = sorted((Path(early["study"]) / "log").glob("*.jsonl"))
    segments[2].write_bytes(segments[2].read_bytes()[:-20])
    flow_run, state, error = run(early["study"])
    assert state.is_failed()
    assert isinstance(error, CorruptLog)
    assert task_runs(server, flow_run, {"sample main"})["sample main"]["run_count"] == 1
    assert sorted((Path(early["study"]) / "log").glob("*.jsonl")) == segments


def test_a_study_can_be_given_as_a_mapping(server: PrefectServer, tmp_path: Path) -> None:
    changes = {"name": "counted", "store": str(tmp_path), "objective": "tune_tasks.testing.objectives:count"}
    _, state, result = run({**SPEC, **changes, "scheduler": "none", "budget": {"trials": 2, "concurrency": 1}})
    assert state.is_completed(), state
    assert result["study"] == str(tmp_path / "counted")
    assert result["reason"] == "all 2 trials are over"


def test_tasks_take_options_and_results_as_every_prefect_task_does(server: PrefectServer, tmp_path: Path) -> None:
    spec = str(write_study(tmp_path))
    named = provider.sample.with_options(name="propose", task_run_name="monday", retries=0)

    @flow
    def composed() -> dict[str, Any]:
        batch = named.submit(spec, run="monday", count=2)
        outcome = provider.launch_trials.submit(spec, batch)
        return provider.evaluate_and_prune(spec, outcome)

    state = composed(return_state=True)
    verdict = state.result()
    assert json.loads(json.dumps(verdict)) == verdict
    assert verdict["batch"] == "monday-0000"
    runs = task_runs(server, str(state.state_details.flow_run_id), {"monday", "launch_trials monday-0000"})
    assert runs["monday"]["state_type"] == "COMPLETED"
    assert {tag for row in runs.values() for tag in row["tags"]} == {"tune_tasks"}


def test_an_async_flow_awaits_a_step_by_its_name_or_by_its_twin_s_or_submits_it(
    server: PrefectServer, tmp_path: Path
) -> None:
    spec = str(write_study(tmp_path))
    named = provider.sample.with_options(task_run_name="tuesday", tags={"mine"}, retries=0)

    @flow
    async def composed() -> dict[str, Any]:
        batch = await named(spec, run="tuesday", count=2)
        outcome = await provider.alaunch_trials(spec, batch)
        evaluated = provider.evaluate_and_prune.submit(spec, outcome)
        again = provider.aevaluate_and_prune.submit(spec, outcome)
        return {"sync": evaluated.result(), "async": again.result()}

    state = asyncio.run(composed(return_state=True))
    verdicts = asyncio.run(state.result(fetch=True)) if inspect.isawaitable(state.result()) else state.result()
    assert verdicts["sync"] == verdicts["async"]
    assert verdicts["sync"]["batch"] == "tuesday-0000"
    runs = task_runs(server, str(state.state_details.flow_run_id), {"tuesday", "launch_trials tuesday-0000"})
    assert runs["tuesday"]["tags"] == ["mine"]


def test_the_async_flow_leaves_the_same_study(server: PrefectServer, tmp_path: Path) -> None:
    result = asyncio.run(provider.atune(str(write_study(tmp_path / "async"))))
    assert result["done"]
    assert result["model"]["promoted"]
    provider.tune(str(write_study(tmp_path / "sync")))
    assert story(result["study"]) == story(str(tmp_path / "sync" / "studies" / "small"))


def test_a_sync_task_in_an_async_flow_and_a_thread_run_a_step_as_they_are(
    server: PrefectServer, tmp_path: Path
) -> None:
    spec = str(write_study(tmp_path))

    @task
    def helper() -> int:
        return int(provider.sample(spec)["trials"])

    @flow
    async def mixed() -> tuple[int, int]:
        return helper(), (await asyncio.to_thread(provider.sample, spec))["trials"]

    assert asyncio.run(mixed()) == (4, 4)


@pytest.mark.s3
def test_a_store_that_is_away_for_a_while_is_waited_for_and_its_key_stays_at_home(
    server: PrefectServer, tmp_path: Path, bucket: ThreadedMotoServer, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = str(write_study(tmp_path, store="s3://tuning/studies", budget={"trials": 2, "concurrency": 1}))
    monkeypatch.setitem(open_objects.__kwdefaults__, "deadline", 0.3)
    bucket.stop()
    failures: list[Any] = []

    def comes_back(task: Any, run: Any, state: Any) -> bool:
        if not failures:
            bucket.start()
            monkeypatch.setitem(open_objects.__kwdefaults__, "deadline", DEADLINE)
        failures.append(state.data)
        return provider.worth_retrying(task, run, state)

    patient = provider.sample.with_options(retry_condition_fn=comes_back, retry_delay_seconds=0.2)

    @flow(persist_result=True, result_serializer="json")
    def outage() -> dict[str, Any]:
        return provider.launch_trials(spec, patient(spec))

    state = outage(return_state=True)
    assert state.is_completed(), state
    runs = task_runs(server, str(state.state_details.flow_run_id), {"sample main", "launch_trials main-0000"})
    assert isinstance(failures[0], Unavailable)
    assert runs["sample main"]["run_count"] == len(failures) + 1
    assert runs["launch_trials main-0000"]["run_count"] == 1
    kept = b"".join(path.read_bytes() for path in server.home.rglob("*") if path.is_file())
    assert b"s3://tuning/studies/small" in kept
    assert secret.encode() not in kept
