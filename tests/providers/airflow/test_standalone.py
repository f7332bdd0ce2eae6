"""A launch in a real Airflow whose processes are killed, and whose tasks a person clears and marks, beside a real Ray.

Trials wait at their second step until the test lets them go on, so nothing here depends on who is fast.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.airflow_standalone import Airflow, DagRun, send, until
from tests.faults.studies import steps
from tests.servers.processes import free_port
from tests.servers.ray_nodes import Nodes, cluster
from tests.studies import events, write_study
from tune_tasks.attend import job_name, stop
from tune_tasks.events import Opened, Requested, Started
from tune_tasks.execution.jobs import Jobs
from tune_tasks.studies import find_study, open_study

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(450)]  # Airflow starts twice

SLEEP = 'time.sleep(float(os.environ.get("STEP_SECONDS", "0")))'
WAIT = 'while step == 2 and not Path(os.environ["GATE"]).exists(): time.sleep(0.05)'


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A cluster of one node that takes jobs."""
    with cluster(cpus=2, dashboard=free_port()) as started:
        yield started


@dataclass(frozen=True)
class Held:
    """A study of two trials with four steps each, which wait after the second one."""

    spec: Path
    jobs: Jobs

    @property
    def url(self) -> str:
        return str(self.spec.parent / "studies" / "small")

    def job(self, attempt: int = 1) -> str:
        """The submission id of the study's job."""
        return job_name(open_study(self.url).state, attempt)

    def condition(self, attempt: int = 1) -> str:
        """What Ray says of that job."""
        return self.jobs.look(self.job(attempt)).condition

    def is_held(self) -> bool:
        """Whether both trials wait."""
        study = find_study(self.url)
        return study is not None and [trial.budget for trial in study.trials] == [2, 2]

    def go_on(self) -> None:
        """Lets the trials go on, also those of a later attempt."""
        (self.spec.parent / "gate").touch()

    def drivers(self) -> list[str]:
        """The jobs that drove the study, in order."""
        return [event.owner for event in events(self.url) if isinstance(event, Opened)]

    def asked(self) -> list[Requested]:
        """Who asked for which job, in order."""
        return [event for event in events(self.url) if isinstance(event, Requested)]

    def starts(self) -> list[tuple[int, int]]:
        """The step from which each attempt at each trial began."""
        return sorted((event.trial, event.step) for event in events(self.url) if isinstance(event, Started))

    def outcome(self, run: DagRun) -> dict[str, Any]:
        """What the study has as the result of a run's launch step."""
        study = open_study(self.url)
        outcome = tt.launch_trials(study, run.result("sample")["batch"]).model_dump(mode="json")
        return {"study": study.url, **outcome, "avoided": 0}


@pytest.fixture
def held(tmp_path: Path, nodes: Nodes) -> Iterator[Held]:
    spec = write_study(
        tmp_path,
        scheduler={"name": "none", "max_budget": 4},
        budget={"trials": 2, "concurrency": 2},
        execution={"runner": "job", "address": nodes.dashboard},
        environment={"variables": {"GATE": str(tmp_path / "gate")}},
    )
    source = (tmp_path / "objective.py").read_text()
    assert SLEEP in source
    (tmp_path / "objective.py").write_text(source.replace(SLEEP, WAIT))
    study = Held(spec, Jobs(nodes.dashboard))
    yield study
    study.go_on()
    with suppress(tt.StudyNotFound):
        stop(open_study(study.url))


@pytest.fixture
def launched(airflow: Airflow, held: Held) -> Callable[..., DagRun]:
    """Starts a run of a DAG, and returns it when its launch is waited for and both trials wait."""

    def launch(dag: str = "cluster", state: str = "deferred") -> DagRun:
        run = airflow.trigger(dag, spec=str(held.spec))
        run.reaches("launch_trials", state)
        until(held.is_held, lambda: run.log("launch_trials", 1))
        return run

    return launch


def runs(pid: int) -> bool:
    """Whether a process lives."""
    with suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def test_a_deferred_launch_frees_its_worker_and_returns_what_the_study_has(
    airflow: Airflow, held: Held, launched: Callable[..., DagRun]
) -> None:
    run = launched()
    pid = run.task("launch_trials")["pid"]
    until(lambda: not runs(pid))
    assert airflow.slots() == {"running": 0, "queued": 0, "deferred": 1}
    held.go_on()
    assert run.finish() == "success"
    assert run.result("launch_trials") == held.outcome(run)
    assert run.result("launch_trials")["states"] == {"completed": 2}
    assert run.result("evaluate_and_prune")["done"]
    assert len(json.dumps(run.result("launch_trials"))) < 4096
    assert held.drivers() == [held.job()]
    assert "trial 0" in run.log("launch_trials", 1)


def test_a_worker_that_is_preempted_and_one_that_is_killed_attach_to_the_same_job_again(
    held: Held, launched: Callable[..., DagRun]
) -> None:
    """The first try gets the SIGTERM of a pod that goes away, the second one a SIGKILL."""
    run = launched("cluster_attended", "running")
    os.kill(attending(run, 1), signal.SIGTERM)
    os.kill(attending(run, 2), signal.SIGKILL)
    attending(run, 3)
    assert held.condition() == "running"
    held.go_on()
    assert run.finish() == "success"
    assert run.result("launch_trials") == held.outcome(run)
    assert held.drivers() == [held.job()]
    assert held.starts() == [(0, 0), (1, 0)]
    assert set(steps(held.url).values()) == {1}


def attending(run: DagRun, attempt: int) -> int:
    """The process of a try, as soon as that has found the job and shows how the study gets on."""
    pid: int = run.reaches("launch_trials", "running", attempt)["pid"]
    until(lambda: "/2: 2 " in run.log("launch_trials", attempt), lambda: run.log("launch_trials", attempt))
    return pid


def test_a_deferred_launch_outlives_the_triggerer_and_then_all_of_airflow(
    airflow: Airflow, held: Held, launched: Callable[..., DagRun]
) -> None:
    run = launched()
    watchers = [watcher(run)]
    airflow.kill_triggerer()
    airflow.start_triggerer()
    until(lambda: watcher(run) not in {None, *watchers})
    watchers.append(watcher(run))
    airflow.kill()
    airflow.start()
    until(lambda: watcher(run) not in {None, *watchers})
    assert held.condition() == "running"
    held.go_on()
    assert run.finish() == "success"
    assert run.task("launch_trials")["try_number"] == 1
    assert run.result("launch_trials") == held.outcome(run)
    assert len(held.asked()) == 1, "nobody has executed the task again"
    assert held.drivers() == [held.job()]
    assert set(steps(held.url).values()) == {1}


def test_a_triggerer_that_lapses_and_comes_back_does_not_stop_the_job_that_another_one_waits_for(
    airflow: Airflow, held: Held, launched: Callable[..., DagRun]
) -> None:
    run = launched()
    first, frozen = watcher(run), airflow.triggerers()
    send(frozen, signal.SIGSTOP)
    try:
        airflow.start_triggerer()
        until(lambda: watcher(run) not in {None, first})
    finally:
        send(frozen, signal.SIGCONT)
    until(lambda: killed(run), lambda: run.log("launch_trials", 1))
    send(frozen, signal.SIGKILL)
    assert held.condition() == "running"
    held.go_on()
    assert run.finish() == "success"
    assert run.result("launch_trials") == held.outcome(run)
    assert len(held.asked()) == 1, "nobody has executed the task again"
    assert held.drivers() == [held.job()]
    assert set(steps(held.url).values()) == {1}


def watcher(run: DagRun) -> int | None:
    """The number of the triggerer that waits for a launch."""
    trigger = run.task("launch_trials")["trigger"]
    return trigger and trigger["triggerer_id"]


def test_a_launch_that_is_cleared_attaches_to_the_job_and_its_old_trigger_does_not_stop_that(
    held: Held, launched: Callable[..., DagRun]
) -> None:
    run = launched()
    run.clear("launch_trials")
    run.reaches("launch_trials", "deferred", attempt=2)
    until(lambda: killed(run), lambda: run.log("launch_trials", 1))
    assert held.condition() == "running"
    held.go_on()
    assert run.finish() == "success"
    assert run.result("launch_trials") == held.outcome(run)
    first, second = held.asked()
    assert first.job == second.job == 1
    assert first.by != second.by
    assert held.drivers() == [held.job()]
    assert held.starts() == [(0, 0), (1, 0)]
    assert set(steps(held.url).values()) == {1}


def killed(run: DagRun) -> bool:
    """Whether Airflow has called `on_kill` of the first try's trigger, and that is over."""
    said = run.log("launch_trials", 1)
    return "invoking on_kill" in said and "trigger completed" in said


def test_a_launch_that_is_marked_failed_stops_the_job_and_the_next_run_goes_on_with_the_study(
    airflow: Airflow, held: Held, launched: Callable[..., DagRun]
) -> None:
    run = launched()
    run.mark("launch_trials", "failed")
    until(lambda: held.condition() == "stopped", lambda: run.log("launch_trials", 1))
    assert run.finish() == "failed"
    held.go_on()
    following = airflow.trigger("cluster", spec=str(held.spec))
    assert following.finish() == "success"
    assert following.result("launch_trials") == held.outcome(following)
    assert following.result("evaluate_and_prune")["done"], "its launch has waited for the trials of the run before"
    assert [event.type for event in events(held.url) if event.type in {"ended", "launched"}][:2] == ["ended", "ended"]
    assert held.drivers() == [held.job(1), held.job(2)]
    assert held.starts() == [(0, 0), (0, 2), (1, 0), (1, 2)]
    assert set(steps(held.url).values()) == {1}


def test_an_attended_launch_that_is_marked_failed_stops_the_job_and_frees_its_worker(
    held: Held, launched: Callable[..., DagRun]
) -> None:
    run = launched("cluster_attended", "running")
    pid = attending(run, 1)
    run.mark("launch_trials", "failed")
    until(lambda: held.condition() == "stopped", lambda: run.log("launch_trials", 1))
    until(lambda: not runs(pid))
    assert run.finish() == "failed"


def test_a_launch_that_is_marked_successful_stops_the_job_and_the_next_run_goes_on_with_the_study(
    airflow: Airflow, held: Held, launched: Callable[..., DagRun]
) -> None:
    run = launched()
    run.mark("launch_trials", "success")
    until(lambda: held.condition() == "stopped", lambda: run.log("launch_trials", 1))
    assert run.finish() == "success"
    assert not run.result("evaluate_and_prune")["done"]
    held.go_on()
    following = airflow.trigger("cluster", spec=str(held.spec))
    assert following.finish() == "success"
    assert following.result("evaluate_and_prune")["done"]
    assert held.drivers() == [held.job(1), held.job(2)]
    assert set(steps(held.url).values()) == {1}
