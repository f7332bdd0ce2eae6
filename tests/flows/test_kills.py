"""kill -9 of the flow's process, of its runner, of Prefect's server, and of several at once, beside a real Ray job.

What each cost is in the study: how often a step of a trial was run, and from where each attempt began. How long it
took until the study went on is printed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.studies import steps
from tests.flows.held import Held, held
from tests.flows.mortal import Mortal, command_of, kill_all
from tests.flows.running import Deployed, FlowRun, finish, start, until
from tests.prefect_server import PrefectServer, shared
from tests.servers.processes import free_port
from tests.servers.ray_nodes import Nodes, cluster
from tune_tasks.execution.guard import family
from tune_tasks.studies import open_study

pytestmark = [pytest.mark.prefect, pytest.mark.ray, pytest.mark.slow]

SERVE = """
import sys
from tune_tasks_prefect import tune
tune.serve(name=sys.argv[1], pause_on_shutdown=False)
"""

STOP = """
import sys
from tune_tasks_prefect.flows import stop_cancelled_run
assert stop_cancelled_run(sys.argv[1])
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A cluster of one node that takes jobs."""
    with cluster(cpus=2, dashboard=free_port()) as started:
        yield started


@pytest.fixture
def study(tmp_path: Path, nodes: Nodes) -> Iterator[Held]:
    with held(tmp_path, nodes.dashboard) as made:
        yield made


@contextmanager
def served(server: PrefectServer, name: str) -> Iterator[subprocess.Popen[str]]:
    """Serves the flow in a process of its own, which looks for runs every second."""
    process = start("-c", SERVE, name, server=server, PREFECT_RUNNER_POLL_FREQUENCY="1", STEP_SECONDS="0")
    try:
        until(lambda: deployments(server, name))
        yield process
    finally:
        kill_all(process.pid)
        process.communicate()


def deployments(server: PrefectServer, name: str) -> list[dict[str, Any]]:
    return server.rows("deployments", deployments={"name": {"any_": [name]}})


def run_of(server: PrefectServer, name: str, **parameters: Any) -> FlowRun:
    """Asks for a run of a deployment, by its name."""
    [found] = deployments(server, name)
    return Deployed(server, found["id"]).run(**parameters)


def children(process: subprocess.Popen[str]) -> list[int]:
    """The processes in which a runner executes flows."""
    return [pid for pid in family({process.pid}) if "spawn_main" in command_of(pid)]


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.1f} s")  # noqa: T201  # for who looks


def attending(run: FlowRun, times: int = 1) -> bool:
    """Whether the launch has found the job and shows how the study gets on, for the so many-th time."""
    lines = run.logged()
    begun = [number for number, line in enumerate(lines) if "trials to run in" in line]
    return len(begun) >= times and any("  trials " in line for line in lines[begun[times - 1] :])


def whole(study: Held) -> None:
    """No trial was begun twice, or lost a step, and one job drove it all."""
    assert open_study(study.url).state.done
    assert study.drivers() == [study.job()]
    assert study.starts() == [(0, 0), (1, 0)]
    assert set(steps(study.url).values()) == {1}


def test_a_flow_whose_process_is_killed_and_then_its_runner_too_attaches_to_the_same_job(study: Held) -> None:
    server = shared()
    with served(server, "killed") as runner:
        run = run_of(server, "killed", study=str(study.spec))
        until(study.is_held)
        [child] = until(lambda: children(runner))
        os.kill(child, signal.SIGKILL)
        with timed("kill -9 of the flow's process until its runner says so"):
            until(lambda: run.state == "CRASHED")
        assert study.condition() == "running"
        with timed("from there until it attends again"):
            run.set("SCHEDULED", "AwaitingRetry", force=True)
            until(lambda: attending(run, 2))
        kill_all(runner.pid)
    assert run.state == "RUNNING", "nobody is left to say something else"
    assert study.condition() == "running"
    run.set("CRASHED")
    with timed("another runner until it attends"), served(server, "killed"):
        run.set("SCHEDULED", "AwaitingRetry", force=True)
        until(lambda: attending(run, 3))
        study.go_on()
        until(lambda: run.state == "COMPLETED")
    assert run.read()["run_count"] == 3
    whole(study)


def test_a_server_that_is_killed_and_then_together_with_the_flow_costs_the_job_nothing(
    study: Held, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        mortal = Mortal(tmp_path / "home", stack)
        run = Deployed.on(mortal.server, "alone").run(study=str(study.spec))
        first = stack.enter_context(run.execute())
        stack.callback(first.kill)
        until(study.is_held)
        mortal.kill()
        assert study.condition() == "running"
        with timed("Prefect's server until it answers again"):
            mortal.start()
        assert first.poll() is None
        assert run.state == "RUNNING"
        kill_all(first.pid)
        mortal.kill()
        assert study.condition() == "running"
        mortal.start()
        run.set("CRASHED")
        run.again()
        second = stack.enter_context(run.execute())
        stack.callback(second.kill)
        with timed("after both were killed until it attends again"):
            until(lambda: attending(run, 2))
        study.go_on()
        output, _ = second.communicate(timeout=120)
        assert run.state == "COMPLETED", output
    whole(study)


def test_a_runner_that_is_shut_down_leaves_the_job_and_a_person_who_cancels_the_run_stops_it(study: Held) -> None:
    server = shared()
    with served(server, "cancelled") as runner:
        run = run_of(server, "cancelled", study=str(study.spec))
        until(study.is_held)
        runner.terminate()
        until(lambda: run.state == "CANCELLED")
        runner.wait(timeout=60)
    assert "Nobody cancelled this run: its runner was shut down" in " ".join(run.logged())
    assert study.condition() == "running"
    with served(server, "cancelled"):
        run.set("SCHEDULED", force=True)
        until(lambda: attending(run, 2))
        run.set("CANCELLING")
        with timed("a run that is cancelled until its job has stopped"):
            until(lambda: study.condition() == "stopped")
        until(lambda: run.state == "CANCELLED")
        assert not open_study(study.url).state.done
        study.go_on()
        again = run_of(server, "cancelled", study=str(study.spec))
        with timed("a run after a cancelled one"):
            until(lambda: again.state == "COMPLETED")
    assert study.drivers() == [study.job(1), study.job(2)]
    assert study.states() == ["completed", "completed"]
    assert set(steps(study.url).values()) == {1}, "it went on from the checkpoints"


def test_a_run_whose_process_and_runner_are_dead_is_cancelled_by_a_flow_of_ours(study: Held) -> None:
    run = Deployed.on(shared(), "dead").run(study=str(study.spec))
    process = run.execute()
    until(study.is_held)
    kill_all(process.pid)
    process.communicate()
    run.set("CANCELLING")
    assert study.condition() == "running"
    finish(start("-c", STOP, run.id))
    until(lambda: study.condition() == "stopped")
    assert run.state == "CANCELLED"


def test_a_run_that_was_cancelled_while_it_was_dead_is_not_gone_on_with_by_an_automation(study: Held) -> None:
    run = Deployed.on(shared(), "late").run(study=str(study.spec))
    process = run.execute()
    until(study.is_held)
    kill_all(process.pid)
    process.communicate()
    run.set("CANCELLING")
    run.set("CRASHED")
    run.again()
    assert run.execute().wait(timeout=60) == 0
    until(lambda: study.condition() == "stopped")
    assert run.state == "CANCELLED"


def test_a_sigterm_leaves_the_job_alone_in_each_of_prefects_modes(study: Held) -> None:
    run = Deployed.on(shared(), "preempted").run(study=str(study.spec))
    run.set("PENDING")
    said: dict[str, str] = {}
    for times, (mode, state) in enumerate(MODES.items(), start=1):
        worker = start("-m", "prefect", "flow-run", "execute", run.id, PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR=mode)
        until(lambda: attending(run, times) and study.is_held())  # noqa: B023  # it is called at once
        for pid in family({worker.pid}) if mode == "crash" else {worker.pid}:
            os.kill(pid, signal.SIGTERM)
        said[mode], _ = worker.communicate(timeout=60)
        until(lambda: run.state == state)  # noqa: B023  # as above
        assert study.condition() == "running", said[mode]
        assert (worker.returncode == 0) is (mode == "reschedule"), said[mode]
        run.again() if state != "RUNNING" else None
    study.go_on()
    finish(run.execute())
    assert run.state == "COMPLETED"
    whole(study)


MODES = {"reschedule": "SCHEDULED", "relinquish": "RUNNING", "crash": "CRASHED"}
"""What Prefect does with a run whose machine goes away, and the state that this leaves."""
