"""The launch step beside a dashboard that answers as told, and the limit of GPUs that it keeps."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import Abort
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

import tune_tasks as tt
from tests.flows.fake_cluster import Cluster, fake_cluster, launched
from tests.flows.running import FlowRun, until
from tests.prefect_server import PrefectServer, shared
from tests.studies import write_study
from tune_tasks.attend import job_name
from tune_tasks.errors import Unavailable
from tune_tasks.spec import load_spec
from tune_tasks.studies import Study
from tune_tasks_prefect import RayCluster, alaunch_trials, launch_trials, limits, lookout
from tune_tasks_prefect.aio import heed, on_a_thread
from tune_tasks_prefect.hooks import stop_cancelled
from tune_tasks_prefect.limits import Slots, gpus

pytestmark = pytest.mark.prefect

BATCH = "main-0000"


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
    made = tt.open_study(write_study(tmp_path, execution={"runner": "job", "address": cluster.address}))
    tt.sample(made)
    return made


@flow
def one(study: str, **options: Any) -> dict[str, Any]:
    return launch_trials.with_options(retries=0)(study, BATCH, **options)


def in_thread(study: str, **options: Any) -> tuple[threading.Thread, list[Any]]:
    """Launches in a flow of its own; gives the state that it came to, or the signal by which it ended."""
    came: list[Any] = []

    def work() -> None:
        try:
            came.append(one(study, return_state=True, **options))
        except Abort as signal:
            came.append(signal)

    thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
    thread.start()
    return thread, came


def run_id(server: PrefectServer) -> str:
    """The flow run that began last."""
    running = {"state": {"type": {"any_": ["RUNNING"]}}}
    [row] = until(lambda: server.rows("flow_runs", flow_runs=running, sort="START_TIME_DESC", limit=1))
    return str(row["id"])


def limit(name: str, slots: int, **more: Any) -> str:
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=slots, **more))
    return name


def taken(name: str) -> int:
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(name).active_slots


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"budget": {"concurrency": 8}}, 1),
        ({"budget": {"concurrency": 8}, "resources": {"gpu": 1}}, 8),
        ({"budget": {"concurrency": 3}, "resources": {"gpu": 0.5}}, 2),
        ({"budget": {"concurrency": 2}, "resources": {"gpu": 1, "bundles": [{"gpu": 4}, {"gpu": 2}]}}, 14),
        ({"budget": {"concurrency": 8}, "resources": {"gpu": 1}, "execution": {"runner": "inline"}}, 1),
    ],
)
def test_a_launch_takes_as_many_slots_as_its_trials_use_gpus_at_once(
    tmp_path: Path, changes: dict[str, Any], wanted: int
) -> None:
    assert gpus(load_spec(write_study(tmp_path, **{"execution": {"runner": "ray"}, **changes}))) == wanted


@pytest.mark.parametrize(
    ("name", "made", "said"),
    [
        ("absent", None, "there is no limit 'absent'; make it with: prefect gcl create absent --limit 2"),
        ("off", {"slots": 9, "active": False}, "'off' is switched off, so it limits nothing; prefect gcl enable off"),
        ("leaks", {"slots": 9, "slot_decay_per_second": 1}, "prefect gcl update leaks --slot-decay-per-second 0"),
        ("small", {"slots": 1}, "the study uses 2 GPUs at once, and 'small' has 1 slots"),
    ],
)
def test_a_limit_that_would_not_limit_is_refused_with_the_command_that_mends_it(
    server: PrefectServer, tmp_path: Path, cluster: Cluster, name: str, made: dict[str, Any] | None, said: str
) -> None:
    if made is not None:
        limit(name, **made)
    gpus = {"budget": {"trials": 9, "concurrency": 2}, "resources": {"gpu": 1}}
    study = tt.open_study(write_study(tmp_path, execution={"runner": "job", "address": cluster.address}, **gpus))
    tt.sample(study)
    error = one(study.url, limit=name, return_state=True).result(raise_on_failure=False)
    assert isinstance(error, tt.ConfigError)
    assert said in str(error)
    assert cluster.submitted == []


def test_a_study_that_takes_what_the_cluster_has_cannot_be_limited(server: PrefectServer, tmp_path: Path) -> None:
    spec = load_spec(write_study(tmp_path, execution={"runner": "ray"}, budget={"trials": 2}))
    with pytest.raises(tt.ConfigError, match=r"set budget\.concurrency in the spec"):
        gpus(spec)


def test_slots_are_held_for_the_time_of_the_launch_and_another_launch_waits_for_them(
    server: PrefectServer, study: Study, cluster: Cluster
) -> None:
    name = limit("held", 1)
    with get_client(sync_client=True) as client:
        client.increment_concurrency_slots([name], 1, "concurrency")
        thread, came = in_thread(study.url, limit=name)
        until(lambda: "Waits for 1 slots" in " ".join(FlowRun(server, run_id(server)).logged()), 30)
        assert cluster.submitted == []
        client.release_concurrency_slots([name], 1, 1.0)
    until(lambda: cluster.submitted)
    assert taken(name) == 1
    launched(study)
    thread.join(60)
    assert came[0].result()["reason"] == "ran"
    assert taken(name) == 0


def test_a_step_that_has_its_result_waits_for_no_slot(server: PrefectServer, study: Study) -> None:
    launched(study)
    assert one(study.url, limit="nowhere")["reason"] == "ran"


def test_slots_that_a_server_forgot_when_it_was_killed_are_counted_once(server: PrefectServer) -> None:
    slots = Slots(limit("forgotten", 2), 2, None)
    slots.acquire(heed)
    with get_client(sync_client=True) as client:  # as a server comes back: counted, but without a lease
        client.release_concurrency_slots_with_lease(slots._lease)
        client.increment_concurrency_slots(["forgotten"], 2, "concurrency")
        slots.renew()
        assert taken("forgotten") == 2
        slots.release()
        assert taken("forgotten") == 0


def test_slots_that_were_given_away_end_the_launch_which_is_tried_again(
    server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = Slots(limit("away", 1), 1, None)
    slots.acquire(heed)
    monkeypatch.setattr(limits, "_LEASE", 60.0)
    monkeypatch.setattr(slots, "_renewed", time.monotonic() - 61)
    with get_client(sync_client=True) as client:
        client.release_concurrency_slots_with_lease(slots._lease)
        client.increment_concurrency_slots(["away"], 1, "concurrency")
    with pytest.raises(Unavailable, match="prefect gcl inspect away"):
        slots.renew()


def test_a_server_that_is_away_for_a_moment_costs_no_slot(server: PrefectServer) -> None:
    slots = Slots(limit("stays", 1), 1, None)
    slots.acquire(heed)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        slots.renew()
    slots.renew()
    assert taken("stays") == 1
    slots.release()


@pytest.mark.parametrize("state", ["CANCELLING", "CANCELLED"])
def test_a_run_without_a_runner_that_is_cancelled_ends_and_stops_its_job(
    server: PrefectServer, study: Study, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(lookout, "_EVERY", 0.2)
    thread, came = in_thread(study.url)
    until(lambda: cluster.submitted)
    run = FlowRun(server, run_id(server))
    run.set(state)
    thread.join(60)
    assert isinstance(came[0], lookout.Cancelled)
    assert cluster.stopped == [job_name(study.refresh(), 1)]
    assert run.state == "CANCELLED"


def test_a_process_whose_run_is_executed_by_another_one_ends_and_leaves_the_job_to_it(
    server: PrefectServer, study: Study, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "_EVERY", 0.2)
    thread, came = in_thread(study.url)
    until(lambda: cluster.submitted)
    run = FlowRun(server, run_id(server))
    for state in ("CRASHED", "PENDING", "RUNNING"):
        run.set(state, force=True)
    thread.join(60)
    assert isinstance(came[0], lookout.TakenOver)
    assert cluster.stopped == []
    assert run.state == "RUNNING"


def test_a_run_that_was_taken_for_dead_and_is_executed_by_nobody_else_goes_on(
    server: PrefectServer, study: Study, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "_EVERY", 0.1)
    thread, came = in_thread(study.url)
    until(lambda: cluster.submitted)
    FlowRun(server, run_id(server)).set("CRASHED", force=True)
    time.sleep(0.5)
    launched(study)
    thread.join(60)
    assert came[0].result()["reason"] == "ran"


def test_an_awaited_launch_does_not_hold_up_the_event_loop(
    server: PrefectServer, study: Study, cluster: Cluster
) -> None:
    @flow
    async def awaiting() -> tuple[dict[str, Any], int]:
        launching = asyncio.ensure_future(alaunch_trials(study.url, BATCH))
        turns = 0
        while not cluster.submitted:
            await asyncio.sleep(0.01)
            turns += 1
        launched(study)
        return await launching, turns

    outcome, turns = asyncio.run(awaiting())
    assert outcome["reason"] == "ran"
    assert turns > 1


def test_a_step_on_a_thread_ends_when_nobody_waits_for_it_any_more() -> None:
    ended = threading.Event()

    def step() -> None:
        try:
            while True:
                heed()
                time.sleep(0.01)
        finally:
            ended.set()

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(on_a_thread(step), 0.1)
        assert await asyncio.to_thread(ended.wait, 5)

    asyncio.run(impatient())


def test_a_launch_and_its_hook_find_the_cluster_that_a_block_names(
    server: PrefectServer, tmp_path: Path, cluster: Cluster
) -> None:
    RayCluster(address=cluster.address).save("elsewhere", overwrite=True)
    study = tt.open_study(write_study(tmp_path, execution={"runner": "job", "address": "http://127.0.0.1:9"}))
    tt.sample(study)
    thread, _ = in_thread(study.url, cluster="elsewhere")
    until(lambda: cluster.submitted)
    run = FlowRun(server, run_id(server))
    run.set("CANCELLING")
    assert stop_cancelled(UUID(run.id))
    assert cluster.stopped == [job_name(study.refresh(), 1)]
    launched(study)
    thread.join(60)


def test_a_cluster_that_no_block_names_is_refused_with_the_command_that_makes_it(
    server: PrefectServer, study: Study, cluster: Cluster
) -> None:
    error = one(study.url, cluster="nowhere", return_state=True).result(raise_on_failure=False)
    assert isinstance(error, tt.ConfigError)
    assert "prefect block create ray-cluster" in str(error)
    assert cluster.submitted == []
