"""What an attempt leaves behind is ended: real processes, below a process of its own that adopts them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tune_tasks.execution.ray import RayRunner
from tune_tasks.testing.driving import DEADLINE, Story, read_log, spec_for, task

START = """
import os, signal, subprocess, sys, time
from pathlib import Path
from tune_tasks.execution import children
from tune_tasks.execution.children import Children

def sleeper():
    return subprocess.Popen(["sleep", "600"]).pid

def shell(text):
    subprocess.run(["sh", "-c", text], check=True)

def there(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False

def number(name):
    while not Path(name).exists() or not Path(name).read_text().endswith("\\n"):
        time.sleep(0.01)
    return int(Path(name).read_text())

children.adopt()
children.GRACE = 0.5
mine = Children()
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], None]:
    """Runs a program in a process of its own, which must end well."""

    def run(program: str) -> None:
        (tmp_path / "program.py").write_text(START + program)
        done = subprocess.run(
            [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert done.returncode == 0, done.stderr

    return run


def test_a_child_is_ended_and_named(run: Any) -> None:
    run("""
pid = sleeper()
assert mine.end() == [f"{pid} (sleep 600)"]
assert not Path(f"/proc/{pid}").exists(), "no zombie is left either"
assert mine.end() == []
""")


def test_grandchildren_are_ended_where_their_parents_are_gone_too(run: Any) -> None:
    run("""
shell("(setsid sh -c 'echo $$ > orphan; sleep 600') & echo")
shell("sh -c 'sleep 600 & echo $! > deep; wait' & echo")
pids = [number("orphan"), number("deep")]
ended = mine.end()
assert len(ended) == 4, ended
assert not any(there(pid) for pid in pids)
""")


def test_one_that_does_not_listen_is_killed(run: Any) -> None:
    run("""
shell("sh -c 'trap \\"\\" TERM; echo $$ > deaf; while :; do sleep 1; done' & echo")
shell("sh -c 'trap \\"touch cleaned; exit\\" TERM; echo $$ > polite; while :; do sleep 0.05; done' & echo")
pids = [number("deaf"), number("polite")]
mine.end()
assert not any(there(pid) for pid in pids)
assert Path("cleaned").exists()
""")


def test_what_starts_others_while_it_ends_leaves_none(run: Any) -> None:
    run("""
Path("late.sh").write_text("trap 'setsid sleep 600 & echo $! > late; exit' TERM; echo $$ > ready; while :; do :; done")
shell("sh late.sh & echo")
number("ready")
mine.end()
assert not there(number("late"))
""")


def test_what_was_there_before_stays(run: Any) -> None:
    run("""
before = sleeper()
shell("setsid sh -c 'sleep 600 & echo $! > below; wait' & echo")
below = number("below")
mine.keep()
after = sleeper()
assert mine.end() == [f"{after} (sleep 600)"]
assert there(before) and there(below)
mine._before.clear()
assert len(mine.end()) == 3
""")


def test_zombies_are_collected_and_not_named(run: Any) -> None:
    run("""
child = os.fork()
if not child:
    os._exit(0)
shell("(sleep 0.1) & echo")
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
time.sleep(0.3)
assert mine.end() == []
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    pass
else:
    raise AssertionError("a zombie is left")
""")


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_the_helpers_of_multiprocessing_stay_and_its_processes_do_not(run: Any, context: str) -> None:
    run(f"""
if __name__ == "__main__":
    import multiprocessing
    from multiprocessing import resource_tracker, shared_memory
    context = multiprocessing.get_context("{context}")
    def start():
        process = context.Process(target=time.sleep, args=(600,))
        process.start()
        return process
    process = start()
    resource_tracker.ensure_running()
    tracker = resource_tracker._resource_tracker._pid
    time.sleep(0.5)
    ended = mine.end()
    assert len(ended) == 1 and str(process.pid) in ended[0], ended
    assert there(tracker)
    process.join()
    again = start()
    assert there(again.pid)
    again.kill()
    again.join()
""")


def test_joblibs_workers_stay(run: Any) -> None:
    pytest.importorskip("joblib")
    run("""
if __name__ == "__main__":
    from joblib import Parallel, delayed
    one = set(Parallel(2)(delayed(os.getpid)() for _ in range(8)))
    assert mine.end() == []
    assert one & set(Parallel(2)(delayed(os.getpid)() for _ in range(8)))
""")


def leave(config: dict[str, Any]) -> dict[str, float]:
    """Leaves an orphan that prints nothing, and says which."""
    subprocess.run(["/bin/sh", "-c", f"sleep 600 & echo $! > {config['mark']}"], check=True)
    name = Path("/proc", Path(config["mark"]).read_text().strip(), "comm")
    while name.read_text() != "sleep\n":  # for a moment it is the shell still
        time.sleep(0.01)
    return {"loss": 1.0}


class Helped:
    """Starts a helper for all of its trials."""

    def __init__(self) -> None:
        self.helper = subprocess.Popen(["/bin/sleep", "600"])

    def __call__(self, config: dict[str, Any]) -> dict[str, float]:
        """Reports whether the helper still runs, and which it is."""
        running = self.helper.poll() is None
        return {"loss": float(running), "pid": float(self.helper.pid)}


@pytest.mark.ray
def test_a_worker_of_ray_ends_what_a_trial_leaves_and_goes_on(local_ray: None, tmp_path: Path) -> None:
    url = str(tmp_path / "study")
    runner = RayRunner(url, spec_for("objective:unused", budget={"concurrency": 1}), leave)
    try:
        story = Story(runner)
        story.run(*(task(number, mark=str(tmp_path / f"{number}")) for number in range(2)))
        for number in range(2):
            pid = (tmp_path / f"{number}").read_text().strip()
            assert not Path(f"/proc/{pid}").exists()
            assert read_log(url, number) == f"ended what this attempt left running: {pid} (sleep 600)\n"
    finally:
        runner.close()


@pytest.mark.ray
def test_the_helper_of_a_class_lives_as_long_as_its_worker(local_ray: None, tmp_path: Path) -> None:
    from tune_tasks.execution import Row

    runner = RayRunner(str(tmp_path / "study"), spec_for("objective:unused", budget={"concurrency": 1}), Helped)
    try:
        story = Story(runner)
        story.run(*(task(number) for number in range(3)))
        rows = [message.metrics for message in story.messages if isinstance(message, Row)]
        assert rows == [{"loss": 1.0, "pid": rows[0]["pid"]}] * 3
    finally:
        runner.close()
    end = time.monotonic() + DEADLINE
    while Path(f"/proc/{int(rows[0]['pid'])}").exists() and time.monotonic() < end:
        subprocess.run(["kill", str(int(rows[0]["pid"]))], check=False, capture_output=True)
        time.sleep(0.05)
