"""How the driver deals with workers of one node: slow to stop, frozen, swollen, warned, idle, or of a shape."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.execution.test_ray import alive, make, pids
from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.execution import Began, Over, Returned, Row, Saved, crew, hired
from tune_tasks.execution import ray as ray_runner
from tune_tasks.execution.worker import Worker
from tune_tasks.testing import objectives
from tune_tasks.testing.driving import Story, outcomes, task

pytestmark = pytest.mark.ray

ONE = {"concurrency": 1}


def deaf(config: dict[str, Any]) -> None:
    """Reports once, and then neither again nor ends."""
    import tune_tasks as tt

    tt.report({"loss": 1.0})
    while config.get("deaf", True):
        time.sleep(0.01)


def test_a_trial_that_does_not_stop_in_time_ends_with_its_worker(start: Any) -> None:
    story, runner = start(deaf, budget=ONE, execution={"stop_grace": 0.5})
    story.hand(task(0))
    story.until(lambda: bool(story.of(Row)))
    runner.stop(0, pause=False)
    story.run(task(1, deaf=False))
    assert story.over().outcome == "stopped"
    assert story.over().error == (
        "no report came within 0.5 s (execution.stop_grace) of its stop; its worker was replaced"
    )
    first, second = pids(story)
    assert first != second
    assert not alive(first)


def test_a_trial_that_shall_pause_has_all_the_time_it_needs(start: Any) -> None:
    story, runner = start(deaf, budget=ONE, execution={"stop_grace": 0.2})
    story.hand(task(0))
    story.until(lambda: bool(story.of(Row)))
    runner.stop(0, pause=True)
    end = time.monotonic() + 1.5
    story.until(lambda: time.monotonic() > end)
    assert story.of(Over) == []


def test_a_worker_that_gives_no_sign_of_life_is_lost_and_replaced(start: Any, tmp_path: Path) -> None:
    story, _ = start(objectives.hold, budget=ONE, execution={"heartbeat": 5})
    story.hand(task(0, until=str(tmp_path / "never")))
    story.until(lambda: bool(story.of(Began)))
    os.kill(pids(story)[0], signal.SIGSTOP)
    story.run(task(1))
    assert story.over().outcome == "lost"
    began = story.of(Began)[0]
    assert f"the worker was lost on node {began.node[:12]}: it gave no sign of life for 5 s" in str(story.over().error)
    assert story.over(1).outcome == "returned"
    os.kill(pids(story)[0], signal.SIGCONT)
    story.until(lambda: not alive(pids(story)[0]))
    assert len(story.of(Over)) == 1


def test_a_driver_that_slept_with_its_workers_does_not_take_them_for_dead(start: Any, tmp_path: Path) -> None:
    story, runner = start(objectives.hold, budget=ONE, execution={"heartbeat": 5})
    story.hand(task(0, until=str(tmp_path / "until")))
    story.until(lambda: bool(story.of(Began)))
    os.kill(pids(story)[0], signal.SIGSTOP)
    time.sleep(6)
    runner.wait(0.0)
    os.kill(pids(story)[0], signal.SIGCONT)
    (tmp_path / "until").touch()
    story.until(lambda: bool(story.of(Over)))
    assert outcomes(story.messages) == ["returned"]


def grow(config: dict[str, Any]) -> dict[str, float]:
    """Leaves as many MiB behind as it is told."""
    kept = objectives.__dict__.setdefault("kept", [])
    kept.append(b"x" * (config["mib"] << 20))
    return {"loss": 1.0}


def test_a_worker_that_keeps_more_memory_than_allowed_is_replaced(start: Any, caplog: Any) -> None:
    story, _ = start(grow, budget=ONE, execution={"max_leak": "64MiB"})
    with caplog.at_level(logging.INFO, "tune_tasks"):
        for number, mib in enumerate([100, 40, 40]):  # the first may load what it likes
            story.run(task(number, mib=mib))
        first, second, third = pids(story)
        story.until(lambda: not alive(first))
        story.run(task(3, mib=1))
    assert first == second == third != pids(story)[3]
    (record,) = [record for record in caplog.records if "left memory behind" in record.message]
    assert record.after - record.before > 64 << 20
    assert outcomes(story.messages) == ["returned"] * 4


def test_garbage_is_no_leak(start: Any) -> None:
    def cycle(config: dict[str, Any]) -> dict[str, float]:
        import gc

        gc.disable()
        block: list[Any] = [b"x" * (100 << 20)]
        block.append(block)
        return {"loss": 1.0}

    story, _ = start(cycle, budget=ONE, execution={"max_leak": "64MiB"})
    story.run(task(0))
    story.run(task(1))
    story.run(task(2))
    assert len(set(pids(story))) == 1


def step_on(config: dict[str, Any]) -> None:
    """Reports with checkpoints until it has seen the notice, and tells of it once more."""
    import tune_tasks as tt

    context = tt.get_context()
    (context.folder / "file").touch()
    while not context.preempted and "short" not in config:
        tt.report({"loss": 1.0})
        time.sleep(0.005)
    tt.report({"loss": 7.0}, checkpoint=context.folder)
    tt.report({"loss": 9.0})


def test_a_terminated_worker_moves_its_trial_at_the_next_checkpoint(start: Any) -> None:
    story, runner = start(step_on, budget={"concurrency": 2})
    story.hand(task(0))
    story.until(lambda: bool(story.of(Row)))
    os.kill(pids(story)[0], signal.SIGTERM)
    story.until(lambda: bool(story.of(Over)))
    assert story.over()[2:4] == ("moved", None)
    assert story.of(Row)[-1].metrics == {"loss": 7.0}
    assert story.of(Saved)[-1].step == story.of(Row)[-1].step
    assert runner.room(0) == 0, "its node is not used any more"
    assert alive(pids(story)[0]), "it keeps its place from its successors"


def test_tasks_behind_a_trial_that_moves_are_given_back(start: Any) -> None:
    story, runner = start(step_on, budget=ONE)
    story.run(*(task(number, short=True) for number in range(10)))
    runner.submit([task(20), task(21), task(22)])
    story.until(lambda: bool(story.of(Began, 20)))
    os.kill(pids(story)[-1], signal.SIGTERM)
    story.until(lambda: bool(story.of(Over, 20) and story.of(Returned, 21) and story.of(Returned, 22)))
    assert story.over(20).outcome == "moved"


def fork(config: dict[str, Any]) -> dict[str, float]:
    """Terminates a child process of its own, as many a data loader does."""
    import multiprocessing

    def live() -> None:
        Path(config["mark"]).touch()
        time.sleep(60)

    child = multiprocessing.get_context("fork").Process(target=live)
    child.start()
    while not Path(config["mark"]).exists():
        time.sleep(0.002)
    child.terminate()
    child.join()
    return {"loss": float(child.exitcode or 0)}


def test_what_a_trial_forks_can_be_terminated(start: Any, tmp_path: Path) -> None:
    story, _ = start(fork, budget=ONE)
    story.run(task(0, mark=str(tmp_path / "mark")))
    assert story.of(Row)[0].metrics == {"loss": -signal.SIGTERM}


def test_idle_workers_make_room_for_another_study(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_IDLE_SECONDS", 0.5)
    first, _ = start(objectives.count, resources={"cpu": 2}, budget={})
    first.run(*(task(number) for number in range(40)))
    second, runner = start(objectives.count, resources={"cpu": 4}, budget={})
    runner.room(1)
    runner.wait(0.1)
    assert runner.room(1) == 0
    first.until(lambda: not any(map(alive, set(pids(first)))))
    second.run(task(0))
    assert second.over().outcome == "returned"


def test_two_studies_share_a_cluster(start: Any, tmp_path: Path) -> None:
    half = {"budget": {"share": 0.5}}
    stories = [start(objectives.hold, **half) for _ in range(2)]
    assert [runner.slots for _, runner in stories] == [2, 2]
    for story, _ in stories:
        story.hand(*(task(number, until=str(tmp_path / "until")) for number in range(2)))
    for story, _ in stories:
        story.until(lambda story=story: bool(story.of(Began, 0) and story.of(Began, 1)))
    (tmp_path / "until").touch()
    for story, _ in stories:
        story.until(lambda story=story: bool(story.of(Over, 0) and story.of(Over, 1)))


def test_a_worker_that_finds_no_place_holds_no_task(start: Any, tmp_path: Path) -> None:
    other, _ = start(objectives.hold, resources={"cpu": 3}, budget=ONE)
    other.hand(task(0, until=str(tmp_path / "until")))
    story, runner = start(objectives.count, budget={"concurrency": 3})
    story.run(*(task(number) for number in range(20)))
    assert outcomes(story.messages) == ["returned"] * 20
    assert len(set(pids(story))) == 1
    members = runner._here.crew.members
    assert len(members) <= 3
    (tmp_path / "until").touch()


def test_no_more_workers_are_asked_for_than_trials_wait(start: Any) -> None:
    _, runner = start(objectives.count, budget={"concurrency": 3})
    runner.room(2)
    runner.wait(0.0)
    assert len(runner._here.crew.members) == 2


def sizes(config: dict[str, Any]) -> dict[str, Any]:
    """Resources as a function of the configuration."""
    if config["size"] == "broken":
        raise ArithmeticError("no size today")
    return {"small": {"cpu": 1}, "large": {"cpu": 4}, "vast": {"gpu": 8}, "odd": {"cup": 1}}[config["size"]]


def shaped(config: dict[str, Any]) -> dict[str, float]:
    """Reports the cores that Ray gave it."""
    import ray

    time.sleep(0.05)
    return {"loss": float(ray.get_runtime_context().get_assigned_resources()["CPU"])}


SIZES = {"function": "tests.execution.test_ray_workers:sizes"}


def test_each_trial_gets_what_the_function_of_the_resources_says(start: Any) -> None:
    story, _ = start(shaped, resources=SIZES, budget={"concurrency": 4})
    names = ["small", "large", "small", "small", "large", "small"]
    story.run(*(task(number, size=size) for number, size in enumerate(names)))
    assert [story.of(Row, number)[0].metrics["loss"] for number in range(6)] == [1, 4, 1, 1, 4, 1]


def test_a_large_trial_does_not_starve_behind_small_ones(start: Any) -> None:
    story, runner = start(shaped, resources=SIZES, budget={"concurrency": 4})
    submitted = 0

    def supply() -> bool:
        nonlocal submitted
        for _ in range(runner.room(1)):
            runner.submit([task(submitted, size="large" if submitted == 20 else "small")])
            submitted += 1
        return bool(story.of(Over, 20))

    story.until(supply)
    assert story.of(Row, 20)[0].metrics == {"loss": 4.0}


@pytest.mark.parametrize(
    ("size", "kind", "text"),
    [
        ("broken", "ArithmeticError", "no size today"),
        ("odd", "ConfigError", "resources.function.cup: 'cup' is not allowed"),
        ("vast", "ConfigError", "no node can hold a trial that needs CPU 1, GPU 8; the most that a node has is"),
    ],
)
def test_a_trial_whose_resources_cannot_be_said_or_had_fails(start: Any, size: str, kind: str, text: str) -> None:
    story, _ = start(shaped, resources=SIZES, budget={"concurrency": 4})
    story.run(task(0, size=size), task(1, size="small"))
    assert (story.over(0).outcome, story.over(0).kind) == ("failed", kind)
    assert text in str(story.over(0).error)
    assert len(story.of(Began, 0)) == 1
    assert story.over(1).outcome == "returned"


def test_a_function_of_resources_that_cannot_be_imported_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"resources.function: 'nowhere:sizes' cannot be imported"):
        make(objectives.count, url, resources={"function": "nowhere:sizes"})


def environ(config: dict[str, Any]) -> dict[str, float]:
    """Says whether the environment is as it was asked for."""
    return {"loss": float(os.environ.get("PLAIN") == "yes" and os.environ.get("SECRET_KEY") == "hush")}


def test_workers_have_the_variables_and_secrets_of_the_study(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "hush")
    story, _ = start(environ, environment={"variables": {"PLAIN": "yes"}, "secrets": ["SECRET_KEY"]})
    story.run(task(0))
    assert story.of(Row)[0].metrics == {"loss": 1.0}


def test_a_secret_that_is_not_set_is_named(url: str, local_ray: None) -> None:
    runner = make(objectives.count, url, environment={"secrets": ["NO_SUCH_KEY"]})
    with pytest.raises(ConfigError, match=r"environment.secrets: NO_SUCH_KEY"):
        runner.open(lambda _: None)
    runner.close()


def test_an_environment_that_ray_cannot_set_up_is_an_error_of_the_spec(start: Any) -> None:
    story, _ = start(objectives.count, environment={"image": "no-such-image:of-tune-tasks"})
    point = "" if shutil.which("podman") else ": a node has no podman, by which Ray runs environment.image"
    with pytest.raises(ConfigError, match=f"environment: Ray cannot set it up{point}"):
        story.run(task(0))


LOADED: list[int] = []


def load_table() -> Any:
    """64 MiB that are worth sharing."""
    import numpy as np

    LOADED.append(os.getpid())
    return np.arange(8 << 20, dtype=np.int64)


def share(config: dict[str, Any], table: Any) -> dict[str, float]:
    """Says where its table lies, and whether it could be written to."""
    address = int(table.__array_interface__["data"][0])
    backing = ""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, _, last = line.split()[0].partition("-")
        if int(first, 16) <= address < int(last, 16):
            backing = " ".join(line.split()[4:])
    Path(config["where"]).write_text(backing)
    objectives.hold(config)
    return {"loss": float(table[5]), "writeable": float(table.flags.writeable), "pid": float(os.getpid())}


def test_an_input_is_loaded_once_and_shared_by_the_workers_of_a_node(start: Any, tmp_path: Path) -> None:
    LOADED.clear()
    story, runner = start(share, inputs={"table": load_table}, budget={"concurrency": 2})
    held = str(tmp_path / "until")
    story.hand(*(task(number, where=str(tmp_path / str(number)), until=held) for number in range(2)))
    story.until(lambda: (tmp_path / "0").exists() and (tmp_path / "1").exists())
    (tmp_path / "until").touch()
    story.until(lambda: bool(story.of(Over, 0) and story.of(Over, 1)))
    rows = [story.of(Row, number)[0].metrics for number in range(2)]
    assert [(row["loss"], row["writeable"]) for row in rows] == [(5.0, 0.0)] * 2
    assert len({row["pid"] for row in rows}) == 2
    places = [(tmp_path / str(number)).read_text() for number in range(2)]
    assert places[0] == places[1]
    assert "plasma" in places[0]
    again = Story(runner)
    again.run(task(3, where=str(tmp_path / "3")))
    assert [os.getpid()] == LOADED


class Stillborn(Worker):
    """A worker that ends before it is up."""

    def __init__(self, *_: Any) -> None:
        os._exit(1)


def test_workers_that_do_not_come_up_are_not_hired_for_ever(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hired, "Worker", Stillborn)
    monkeypatch.setattr(ray_runner, "_STILLBORN", 4)
    hired._actor_class.cache_clear()
    story, _ = start(objectives.count, budget=ONE)
    try:
        with pytest.raises(Unavailable, match="4 workers ended before they were up; the last: "):
            story.run(task(0))
    finally:
        hired._actor_class.cache_clear()
