"""The launch operator and its trigger beside a dashboard that answers as told; `test_standalone` has real ones."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

import tune_tasks as tt
from tests.airflow_home import run
from tests.execution.test_jobs import Answer, dashboard
from tests.studies import events, write_study
from tune_tasks.attend import job_name
from tune_tasks.errors import Unavailable
from tune_tasks.events import Launched, Requested
from tune_tasks.studies import Study, append
from tune_tasks_airflow import triggers
from tune_tasks_airflow.launch import LaunchTrialsOperator, TuneOperator
from tune_tasks_airflow.operators import run_name
from tune_tasks_airflow.triggers import LaunchTrigger

BATCH = "main-0000"


class Cluster:
    """A cluster that takes jobs and runs none; `job` is what it says of every job that was submitted.

    To the next `down` requests it has no answer.
    """

    def __init__(self) -> None:
        self.job = {"status": "RUNNING", "message": ""}
        self.submitted: list[str] = []
        self.stopped: list[str] = []
        self.down = 0

    def answer(self, method: str, path: str) -> Answer:
        name = path.removeprefix("/api/jobs/").partition("/")[0]
        if self.down:
            self.down -= 1
            return 503, "bad gateway"
        if path.startswith("/api/packages"):
            return 200, {}
        if path == "/api/version":
            return 200, {"ray_version": "2.60.0"}
        if method == "POST" and path.endswith("/stop"):
            self.stopped.append(name)
            return 200, {"stopped": True}
        if method == "POST":
            self.submitted.append(path)
            return 200, {}
        return (200, self.job) if self.submitted else (404, "no such job")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    with dashboard(made.answer) as (address, _):
        made.address = address  # type: ignore[attr-defined]
        yield made


@pytest.fixture
def study(tmp_path: Path, cluster: Any) -> Study:
    spec = write_study(tmp_path, execution={"runner": "job", "address": cluster.address})
    made = tt.open_study(spec)
    tt.sample(made)
    return made


def context(number: int = 1) -> Any:
    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", try_number=number, id=f"id-{number}", map_index=-1)
    ti.xcom_push = lambda *_: None
    return {"ti": ti, "dag": SimpleNamespace(dag_id="d"), "run_id": "r"}


def launch(study: Study, **options: Any) -> LaunchTrialsOperator:
    return LaunchTrialsOperator(task_id="t", study=study.url, batch=BATCH, deferrable=True, **options)


def deferred(operate: Callable[[], Any]) -> LaunchTrigger:
    with pytest.raises(TaskDeferred) as raised:
        operate()
    trigger = raised.value.trigger
    assert set(trigger.serialize()[1]) == set(inspect.signature(LaunchTrigger).parameters)
    assert json.loads(json.dumps(trigger.serialize()[1])) == trigger.serialize()[1]
    assert isinstance(trigger, LaunchTrigger)
    return trigger


def fire(trigger: LaunchTrigger) -> dict[str, Any]:
    async def first() -> dict[str, Any]:
        again = LaunchTrigger(**trigger.serialize()[1])  # as the triggerer makes it
        async for event in again.run():
            return dict(event.payload)
        raise AssertionError("it ended without an event")

    return asyncio.run(asyncio.wait_for(first(), 30))


def launched(study: Study) -> None:
    """Records that the launch step is over, as the job's driver does."""
    append(
        study,
        lambda state: Launched(
            key=f"{BATCH}/launch", batch=BATCH, states={"paused": 4}, best=None, value=None, reason="ran", time=1.0
        ),
    )


def test_it_defers_when_the_job_is_there_and_returns_what_the_study_says(study: Study, cluster: Any) -> None:
    trigger = deferred(lambda: launch(study, poll_interval=0.1).execute(context()))
    assert len(cluster.submitted) == 1
    launched(study)
    event = fire(trigger)
    assert event["sign"] == "over"
    result = launch(study).resume(context(), event)
    assert (result["states"], result["reason"]) == ({"paused": 4}, "ran")


def test_a_second_try_takes_the_job_over_and_the_first_one_does_not_stop_it(study: Study, cluster: Any) -> None:
    first = deferred(lambda: launch(study).execute(context(1)))
    second = deferred(lambda: launch(study).execute(context(2)))
    assert len(cluster.submitted) == 1
    asked = [event.by for event in events(study.url) if isinstance(event, Requested)]
    assert asked == ["d/t/r#1:id-1", "d/t/r#2:id-2"]
    kill(first, "failed")
    assert cluster.stopped == []
    kill(second, "failed")
    assert cluster.stopped == [job_name(study.refresh(), 1)]


def kill(trigger: LaunchTrigger, state: str | None) -> None:
    """What Airflow does when a person acts on a deferred task, whose record says `state` by then."""
    trigger.task_instance = context()["ti"]
    patch = pytest.MonkeyPatch()
    patch.setattr(triggers, "ended", lambda _: state in triggers._ENDED)
    try:
        asyncio.run(trigger.on_kill())
    finally:
        patch.undo()


@pytest.mark.parametrize("state", [None, "deferred", "queued", "scheduled", "running"])
def test_a_task_that_is_cleared_or_taken_over_keeps_its_job(study: Study, cluster: Any, state: str | None) -> None:
    kill(deferred(lambda: launch(study).execute(context())), state)
    assert cluster.stopped == []


def test_a_job_is_kept_where_the_operator_says_so(study: Study, cluster: Any) -> None:
    kill(deferred(lambda: launch(study, cancel_on_kill=False).execute(context())), "failed")
    assert cluster.stopped == []


def test_a_job_that_is_gone_is_followed_by_the_next_one(study: Study, cluster: Any) -> None:
    trigger = deferred(lambda: launch(study).execute(context()))
    cluster.job = {"status": "STOPPED", "message": ""}
    event = fire(trigger)
    assert event["sign"] == "job"
    cluster.submitted.clear()
    again = deferred(lambda: launch(study).resume(context(), event))
    assert again.wait["job"] == job_name(study.refresh(), 2)
    assert again.wait["losses"] == 1


def test_what_ended_the_job_fails_the_task_at_once_where_the_spec_is_wrong(study: Study, cluster: Any) -> None:
    event = {"sign": "job", "wait": deferred(lambda: launch(study).execute(context())).wait}
    cluster.job = {"status": "FAILED", "message": "Job entrypoint command failed with exit code 2"}
    with pytest.raises(AirflowFailException, match="ConfigError: "):
        launch(study).resume(context(), event)


def test_a_cluster_that_is_away_for_long_ends_the_wait_and_is_left_to_the_retries(study: Study, cluster: Any) -> None:
    trigger = deferred(lambda: launch(study, poll_interval=0.05).execute(context()))
    cluster.down, trigger.patience = 99, 0.2
    event = fire(trigger)
    assert event["sign"] == "unavailable"
    with pytest.raises(Unavailable, match="has not answered for a while; the trials go on meanwhile"):
        launch(study).resume(context(), event)


def test_a_cluster_that_is_away_for_a_moment_does_not_end_the_wait(study: Study, cluster: Any) -> None:
    trigger = deferred(lambda: launch(study, poll_interval=0.05).execute(context()))
    cluster.down, cluster.job = 2, {"status": "STOPPED", "message": ""}
    assert fire(trigger)["sign"] == "job"
    assert cluster.down == 0


def test_without_durable_an_earlier_job_is_stopped_first_and_none_of_its_own(study: Study, cluster: Any) -> None:
    deferred(lambda: launch(study).execute(context(1)))
    trigger = deferred(lambda: launch(study, durable=False).execute(context(2)))
    assert cluster.stopped == [job_name(study.refresh(), 1)]
    event = {"sign": "job", "wait": trigger.wait}
    deferred(lambda: launch(study, durable=False).resume(context(2), event))
    assert cluster.stopped == [job_name(study.refresh(), 1)]


def test_the_address_of_a_cluster_that_a_task_made_counts_in_the_worker_and_in_the_triggerer(
    tmp_path: Path, cluster: Any
) -> None:
    spec = write_study(tmp_path, execution={"runner": "job", "address": "http://127.0.0.1:9"})
    study = tt.open_study(spec)
    tt.sample(study)
    trigger = deferred(lambda: launch(study, poll_interval=0.05, address=cluster.address).execute(context()))
    assert len(cluster.submitted) == 1
    cluster.job = {"status": "FAILED", "message": "gone"}
    assert fire(trigger)["sign"] == "job"
    assert study.refresh().spec.execution.address == "http://127.0.0.1:9"


def test_deferring_has_no_effect_where_the_trials_run_in_this_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tt.open_study(write_study(tmp_path))
    tt.sample(study)
    assert sum(launch(study).execute(context())["states"].values()) == 4
    assert "deferrable has no effect with runner: inline" in capsys.readouterr().out


def test_the_whole_loop_is_one_task_that_returns_when_the_study_is_done(tmp_path: Path) -> None:
    spec = write_study(tmp_path)
    verdict = TuneOperator(task_id="t", study=spec).execute(context())
    study = tt.open_study(verdict["study"])
    assert verdict["done"]
    assert study.state.done
    assert list(study.state.rounds) == [run_name("d", "r")]
    assert TuneOperator(task_id="t", study=spec).execute(context())["done"]


def test_the_whole_loop_waits_in_the_triggerer_for_one_batch_after_another(study: Study, cluster: Any) -> None:
    loop = TuneOperator(task_id="t", study=study.url, run="main", deferrable=True, poll_interval=0.05)
    trigger = deferred(lambda: loop.execute(context()))
    assert trigger.wait["batch"] == BATCH
    launched(study)
    event = fire(trigger)
    event["wait"] = {**event["wait"], "losses": 2}
    after = deferred(lambda: loop.resume(context(), event))
    assert (after.wait["batch"], after.wait["losses"]) == ("main-0001", 0)


def test_studies_are_mapped_one_for_each_region(tmp_path: Path) -> None:
    done = run("tests", "regions", {"spec": str(write_study(tmp_path)), "regions": ["eu", "us"]})
    assert set(done.states.values()) == {"success"}
    for region in ("eu", "us"):
        study = tt.open_study(str(tmp_path / "studies" / region))
        assert study.state.done
        assert [model["promoted"] for model in study.state.promotions] == [True]
