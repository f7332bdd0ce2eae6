"""The store of a study fails for a while under a running flow: it waits, then fails, is tried again, and goes on."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

import tune_tasks_prefect as provider
from tests.faults.studies import sampled, steps
from tests.flows.running import FlowRun, until
from tests.prefect_server import PrefectServer, shared
from tests.servers.proxy import Proxy, proxied
from tests.studies import events, write_study
from tune_tasks.errors import Unavailable
from tune_tasks.events import Ended, Launched
from tune_tasks.store import open_objects
from tune_tasks.studies import open_study

pytestmark = [pytest.mark.prefect, pytest.mark.s3]

FOR_EVER = float("inf")


@pytest.fixture(scope="module")
def server() -> Iterator[PrefectServer]:
    running = shared()
    with temporary_settings({PREFECT_API_URL: running.api, PREFECT_HOME: running.home}):
        yield running


@pytest.fixture
def network(moto_server: Any) -> Iterator[Proxy]:
    with proxied(moto_server) as proxy:
        yield proxy


def test_a_store_that_fails_under_a_running_flow_is_waited_for_and_nothing_finished_is_run_again(
    server: PrefectServer,
    network: Proxy,
    reach: Callable[[Any], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(open_objects.__kwdefaults__, "deadline", 2.0)
    place = reach(network.way)
    commits = {"scheduler": {"name": "none", "max_budget": 6}, "execution": {"runner": "inline", "group_time": 1e-9}}
    spec = str(write_study(tmp_path, store=place, budget={"trials": 4, "concurrency": 1}, **commits))
    failures: list[Any] = []

    def heals(task: Any, run: Any, state: Any) -> bool:
        failures.append(state.data)
        network.heal()
        return provider.worth_retrying(task, run, state)

    launch = provider.launch_trials.with_options(retry_condition_fn=heals, retry_delay_seconds=0.1)

    @flow
    def outage() -> dict[str, Any]:
        batch = provider.sample(spec)
        network.exchanges.clear()
        outcome = launch(spec, batch)
        return provider.evaluate_and_prune(spec, outcome)

    def fail() -> None:
        """Once some of the trials have run, the store says for half a second to come later, and then nothing at all."""
        until(lambda: len(network.met("PUT", "/log/")) > 3)
        network.fail("503 SlowDown", times=FOR_EVER)
        time.sleep(0.5)
        network.heal()
        until(lambda: len(network.met("PUT", "/log/")) > 12)
        network.fail("reset", times=FOR_EVER)

    failing = threading.Thread(target=fail)
    monkeypatch.setenv("STEP_SECONDS", "0.05")
    failing.start()
    state = outage(return_state=True)
    failing.join()
    assert state.is_completed(), state
    assert [type(error) for error in failures] == [Unavailable]
    url = f"{place}/small"
    assert {trial.state for trial in open_study(url).trials} == {"completed"}
    assert sampled(url) == [0, 1, 2, 3]
    assert sum(isinstance(event, Launched) for event in events(url)) == 1
    again = {trial for (trial, _), times in steps(url).items() if times > 1}
    assert len(again) <= 1, "only the trial in flight, from its newest checkpoint"
    assert Counter(event.trial for event in events(url) if isinstance(event, Ended)) == dict.fromkeys(range(4), 1)
    assert FlowRun(server, str(state.state_details.flow_run_id)).state == "COMPLETED"
