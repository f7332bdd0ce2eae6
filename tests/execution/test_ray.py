"""The Ray runner on a real local Ray: the contract, and what it promises when workers and drivers die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tune_tasks.errors import ConfigError
from tune_tasks.execution import Began, Over, Returned, Row, Saved, TrialTask, cluster
from tune_tasks.execution.ray import RayRunner
from tune_tasks.store import open_objects
from tune_tasks.testing import objectives
from tune_tasks.testing.driving import DEADLINE, Story, outcomes, read_log, spec_for, task
from tune_tasks.testing.runners import RunnerContract

pytestmark = pytest.mark.ray


def make(objective: Any, url: str, folder: str | None = None, **changes: Any) -> RayRunner:
    named = objective if isinstance(objective, str) else "objective:unused"
    return RayRunner(url, spec_for(named, **changes), objective, folder)


@pytest.mark.usefixtures("local_ray")
class TestRayRunner(RunnerContract):
    def make(self, objective: Any, url: str, folder: str | None = None, **changes: Any) -> RayRunner:
        return make(objective, url, folder, **changes)


def pids(story: Story) -> list[int]:
    return [int(message.worker.rpartition(":")[2]) for message in story.messages if isinstance(message, Began)]


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually_gone(pids: Iterable[int]) -> None:
    end = time.monotonic() + DEADLINE
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < end, [(pid, Path(f"/proc/{pid}/cmdline").read_bytes()[:80]) for pid in left]
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_worker_that_dies_loses_one_attempt_and_the_next_goes_on(start: Any, tmp_path: Path, how: str) -> None:
    story, _ = start(objectives.die, budget={"concurrency": 1})
    config = {"how": how, "mark": str(tmp_path / "mark"), "until": str(tmp_path / "until")}
    story.hand(task(0, 1, **config))
    story.until(lambda: bool(story.of(Saved)))
    (tmp_path / "until").touch()
    story.run(task(1, 1, **config))
    assert (story.over(0).outcome, story.over(0).kind) == ("lost", "ActorDiedError")
    assert "the worker was lost" in str(story.over(0).error)
    saved = story.of(Saved)[0]
    story.run(TrialTask(0, 2, config, None, (saved.step, saved.checkpoint)))
    assert story.steps(0, 2) == [2]
    assert story.over(0, 2).outcome == "returned"


def test_a_worker_that_dies_before_it_says_a_word_loses_its_first_task_and_gives_the_others_back(start: Any) -> None:
    story, runner = start(objectives.die_at_once, budget={"concurrency": 1})
    runner.submit([task(0), task(1)])
    story.until(lambda: len(story.messages) == 3)
    assert story.of(Began)[0].step == 0
    assert story.over().outcome == "lost"
    assert story.of(Returned, 1) == [Returned(1, 1)]


def test_a_worker_that_is_lost_is_replaced(start: Any) -> None:
    story, runner = start(objectives.die_at_once, budget={"concurrency": 1})
    story.run(*(task(number) for number in range(3)))
    assert outcomes(story.messages) == ["lost", "lost", "lost"]
    story.until(lambda: runner.room(1) == 1)


def test_the_last_words_of_a_lost_worker_are_kept(start: Any, url: str, tmp_path: Path) -> None:
    (tmp_path / "until").touch()
    story, _ = start(objectives.die)
    story.run(task(5, 1, how="kill", mark=str(tmp_path / "mark"), until=str(tmp_path / "until")))
    assert story.over(5).outcome == "lost"
    assert read_log(url, 5) == "last words\n"


def test_workers_stay_warm(start: Any) -> None:
    story, _ = start(objectives.count)
    story.run(*(task(number) for number in range(20)))
    first = set(pids(story))
    story.run(*(task(number) for number in range(20, 40)))
    assert set(pids(story)) == first
    assert len(first) <= 2


def test_a_process_for_each_trial_where_the_spec_says_so(start: Any) -> None:
    story, _ = start(objectives.count, execution={"isolation": "process"})
    story.run(*(task(number) for number in range(3)))
    assert len(set(pids(story))) == 3
    story.until(lambda: not any(map(alive, pids(story))))


def test_the_concurrency_of_the_spec_limits_the_slots(start: Any) -> None:
    _, one = start(objectives.count, budget={"concurrency": 1})
    _, all_four = start(objectives.count, budget={})
    _, halves = start(objectives.count, resources={"cpu": 0.5}, budget={})
    _, special = start(objectives.count, resources={"cpu": 0, "custom": {"special": 0.3}}, budget={})
    assert [runner.slots for runner in (one, all_four, halves, special)] == [1, 4, 8, 3]


def test_trials_that_no_node_can_hold_are_refused_at_once(url: str, local_ray: None) -> None:
    runner = make(objectives.count, url, resources={"cpu": 1, "custom": {"quantum": 2}})
    with pytest.raises(
        ConfigError,
        match="no node can hold a trial that needs CPU 1, quantum 2; the most that a node has is CPU 4, quantum 0",
    ):
        runner.open(lambda _: None)
    runner.close()


def test_a_store_in_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"memory://x.*inline"):
        make(objectives.count, "memory://x/y")


def test_an_objective_that_cannot_be_sent_is_refused(url: str, local_ray: None) -> None:
    lock = threading.Lock()
    runner = make(lambda config: lock.acquire(), url)
    with pytest.raises(ConfigError, match=r"cannot be sent to the workers.*import string"):
        runner.open(lambda _: None)
    runner.close()


def test_an_objective_of_a_script_travels_by_value(start: Any) -> None:
    factor = 3.0
    story, _ = start(lambda config: {"loss": factor * config["x"]})
    story.run(task(x=2.0))
    assert story.of(Row)[0].metrics == {"loss": 6.0}


def test_tasks_behind_a_long_trial_go_to_other_workers(start: Any, tmp_path: Path) -> None:
    story, runner = start(objectives.hold, budget={"concurrency": 1})
    runner.submit([task(0, until=str(tmp_path / "until")), task(1), task(2)])
    story.until(lambda: bool(story.of(Returned, 1) and story.of(Returned, 2)))
    assert story.of(Over) == []
    (tmp_path / "until").touch()
    story.until(lambda: bool(story.of(Over)))
    assert story.over().outcome == "returned"


def test_short_trials_are_handed_ahead_and_long_ones_are_not(start: Any, tmp_path: Path) -> None:
    story, runner = start(objectives.count, budget={"concurrency": 1})
    story.until(lambda: runner.room(1) == 1)
    story.run(*(task(number) for number in range(40)))
    assert runner.room(1) > 1
    slow = start(lambda config: time.sleep(0.15) or {"loss": 1.0}, budget={"concurrency": 1})
    slow[0].run(*(task(number) for number in range(2)))
    assert slow[1].room(1) == 1


def test_a_task_that_has_not_begun_is_given_back_when_it_is_stopped(start: Any, tmp_path: Path) -> None:
    story, runner = start(objectives.hold, budget={"concurrency": 1})
    runner.submit([task(0, until=str(tmp_path / "until")), task(1), task(2)])
    runner.stop(2, pause=True)
    given_back = (message for message in story.messages if isinstance(message, Returned))
    story.until(lambda: any(isinstance(message, Returned) for message in story.messages))
    assert next(given_back) == Returned(2, 1), "at once, before those that the long trial keeps waiting"
    (tmp_path / "until").touch()
    story.until(lambda: bool(story.of(Over)))


def test_output_of_processes_and_of_c_code_is_kept(start: Any, url: str) -> None:
    story, _ = start(objectives.loud, budget={"concurrency": 1})
    story.run(task(0, mark="one", how=["process", "c"]), task(1, mark="two", how=["c"]), task(2, mark="three"))
    lines = read_log(url, 0).splitlines()
    assert sorted(lines) == ["and its stderr", "from C one", "from a process one"]
    assert read_log(url, 1) == "from C two\n"
    assert open_objects(url).list("logs/") == ["logs/000000-1.txt", "logs/000001-1.txt"]


def test_a_trial_that_breaks_its_streams_harms_no_other(start: Any, url: str) -> None:
    story, _ = start(objectives.loud, budget={"concurrency": 1})
    story.run(task(0, mark="x", how=["close"]), task(1, mark="two", how=["c"]))
    assert outcomes(story.messages) == ["returned", "returned"]
    assert read_log(url, 1) == "from C two\n"


def test_output_can_be_read_while_the_trial_runs(start: Any, url: str, tmp_path: Path) -> None:
    def talk(config: dict[str, Any]) -> dict[str, float]:
        os.write(1, b"so far\n")
        return objectives.hold(config)

    story, _ = start(talk)
    story.hand(task(until=str(tmp_path / "until")))
    story.until(lambda: open_objects(url).list("logs/") == ["logs/000000-1.txt"])
    assert read_log(url, 0) == "so far\n"
    (tmp_path / "until").touch()
    story.until(lambda: bool(story.of(Over)))


def test_nothing_is_left_beside_the_logs(url: str, local_ray: None) -> None:
    runner = make(objectives.loud, url)
    Story(runner).run(task(0, mark="x", how=["python"]), task(1, mark="x"))
    runner.close()
    assert [path.name for path in (Path(url) / "logs").iterdir()] == ["000000-1.txt"]


def test_closing_ends_trials_that_run(url: str, local_ray: None, tmp_path: Path) -> None:
    runner = make(objectives.hold, url)
    story = Story(runner)
    story.hand(task(mark=str(tmp_path / "pid"), until=str(tmp_path / "never")))
    story.until(lambda: bool(story.of(Began)))
    runner.close()
    eventually_gone(pids(story))


def test_opening_again_gives_up_what_an_earlier_driver_left(url: str, local_ray: None, tmp_path: Path) -> None:
    runner = make(objectives.hold, url)
    first = Story(runner)
    first.hand(task(until=str(tmp_path / "never")))
    first.until(lambda: bool(first.of(Began)))
    second = Story(runner)
    second.run(task(0, 2))
    eventually_gone(pids(first))
    runner.close()
    assert second.over(0, 2).outcome == "returned"
    assert first.of(Over) == []


def test_an_address_without_a_ray_is_unavailable(url: str) -> None:
    program = (
        "from tests.execution.test_ray import *\n"
        f"make(objectives.count, {url!r}, execution={{'address': '127.0.0.1:1'}}).open(print)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert "Unavailable: execution.address: no Ray answers at '127.0.0.1:1'" in done.stderr, done.stderr


def test_what_ray_says_is_logged_and_not_printed(capsys: pytest.CaptureFixture[str], caplog: Any) -> None:
    from ray._private import worker

    cluster._quieten()
    with caplog.at_level("INFO", logger="tune_tasks"):
        worker.print_to_stdstream({"pid": "raylet", "lines": ["a worker died"], "is_err": False}, ignore_prefix=False)
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == ["Ray: a worker died"]


EMBEDDED = """
from tests.execution.test_ray import *
story = Story(runner := make(objectives.leave_child, sys.argv[1], budget={"concurrency": 1}))
for number, mark in enumerate(sys.argv[2:]):
    for attempt in range(1, 9):  # the first ones may go to a worker that was killed
        if not Path(mark).exists():
            story.run(task(number, attempt, mark=mark))
    print("ran", flush=True)
    sys.stdin.readline()
runner.close()
"""


def embedded(tmp_path: Path, trials: int) -> subprocess.Popen[str]:
    """A process that runs trials on a Ray of its own, each of which leaves a child; it waits for a line after each."""
    marks = [str(tmp_path / f"pids-{number}") for number in range(trials)]
    command = [sys.executable, "-c", EMBEDDED, str(tmp_path / "study"), *marks]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=Path.cwd())
    assert process.stdout is not None
    assert process.stdout.readline() == "ran\n"
    return process


def left(tmp_path: Path, trial: int) -> list[int]:
    """The child that a trial left, and the worker that ran it."""
    return [int(pid) for pid in (tmp_path / f"pids-{trial}").read_text().split()]


def descendants(pid: int) -> set[int]:
    found = {pid}
    for _ in range(5):
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(entry.read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent in found:
                found.add(int(entry.parent.name))
    return found


@pytest.mark.slow
def test_closing_leaves_no_process_behind_and_says_nothing(tmp_path: Path) -> None:
    process = embedded(tmp_path, trials=1)
    family = descendants(process.pid) | set(left(tmp_path, 0))
    out, err = process.communicate("\n", timeout=DEADLINE)
    assert (process.returncode, out, err) == (0, "", "")
    eventually_gone(family)


@pytest.mark.slow
def test_what_a_trial_started_ends_with_its_worker_and_a_killed_driver_takes_its_ray_with_it(tmp_path: Path) -> None:
    process = embedded(tmp_path, trials=2)
    child, worker = left(tmp_path, 0)
    os.kill(worker, signal.SIGKILL)
    eventually_gone([child])
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ran\n"
    family = descendants(process.pid) | set(left(tmp_path, 1))
    assert worker not in family
    assert len(family) > 4, "the Ray of this process was found"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    eventually_gone(family)
