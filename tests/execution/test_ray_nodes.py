"""What the Ray runner does as nodes come and go, on a real cluster of several nodes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.execution.test_ray import make
from tests.execution.test_ray_workers import step_on
from tests.servers.ray_nodes import HEAD
from tune_tasks.errors import ConfigError
from tune_tasks.execution import Began, Over, Row, Saved, TrialTask
from tune_tasks.execution.ray import RayRunner
from tune_tasks.testing import objectives
from tune_tasks.testing.driving import DEADLINE, Story, task

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without slots, and two nodes: one with two cores and a disk, one with two cores and two GPUs."""
    import ray
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **HEAD})
    try:
        started.add_node(num_cpus=2, resources={"disk": 1})
        started.add_node(num_cpus=2, num_gpus=2)
        ray.init(started.address, namespace="tests", log_to_driver=False, logging_level="ERROR")
        yield started
    finally:
        ray.shutdown()
        started.shutdown()


@pytest.fixture
def start(tmp_path: Path, cluster: Any) -> Iterator[Callable[..., tuple[Story, RayRunner]]]:
    runners: list[RayRunner] = []

    def start(objective: Any, **changes: Any) -> Any:
        runner = make(objective, str(tmp_path / "study"), **changes)
        runners.append(runner)
        return Story(runner), runner

    yield start
    for runner in runners:
        runner.close()


@pytest.fixture
def add(cluster: Any) -> Iterator[Callable[..., Any]]:
    """Adds nodes for the time of a test."""
    added = []

    def add(**has: Any) -> Any:
        added.append(cluster.add_node(**has))
        return added[-1]

    yield add
    for node in added:
        remove(cluster, node)


@pytest.fixture
def extra(add: Callable[..., Any]) -> Any:
    """A node more, with two cores and a resource of its own, for a test that breaks it."""
    return add(num_cpus=2, resources={"extra": 2})


def remove(cluster: Any, node: Any) -> None:
    """Kills a node, unless it is gone, and waits until Ray knows of it."""
    import ray

    if node in cluster.list_all_nodes():
        cluster.remove_node(node, allow_graceful=False)
    end = time.monotonic() + DEADLINE
    while any(listed["Alive"] for listed in ray.nodes() if listed["NodeID"] == node.node_id):
        assert time.monotonic() < end
        time.sleep(0.1)


EXTRA = {"cpu": 1, "custom": {"extra": 1}}


def where(config: dict[str, Any]) -> dict[str, float]:
    """Holds its worker, and writes what Ray gave it."""
    import ray

    Path(config["gpus"]).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    assert ray.is_initialized()
    return objectives.hold(config)


def test_slots_follow_the_cluster(start: Any, cluster: Any, add: Any) -> None:
    story, runner = start(objectives.count, budget={})
    assert runner.slots == 4
    node = add(num_cpus=3)
    story.until(lambda: runner.slots == 7)
    remove(cluster, node)
    story.until(lambda: runner.slots == 4)


def test_workers_that_wait_for_a_node_start_when_it_comes(start: Any, add: Any, tmp_path: Path) -> None:
    story, runner = start(objectives.hold, budget={"concurrency": 6})
    tasks = [task(number, until=str(tmp_path / "until")) for number in range(6)]
    story.hand(*tasks[:4])
    story.until(lambda: all(story.of(Began, number) for number in range(4)))
    assert runner.room(2) == 0
    node = add(num_cpus=2)
    story.hand(*tasks[4:])
    story.until(lambda: all(story.of(Began, number) for number in range(6)))
    assert {story.of(Began, number)[0].node for number in (4, 5)} == {node.node_id}
    (tmp_path / "until").touch()
    story.until(lambda: all(story.of(Over, number) for number in range(6)))


def test_a_share_of_the_cluster_is_all_that_a_study_takes(start: Any) -> None:
    _, quarter = start(objectives.count, budget={"share": 0.25})
    _, little = start(objectives.count, budget={"share": 0.01, "concurrency": 9})
    assert (quarter.slots, little.slots) == (1, 1)


def test_a_lost_node_is_named(start: Any, cluster: Any, extra: Any, tmp_path: Path) -> None:
    story, _ = start(objectives.hold, resources=EXTRA)
    story.hand(task(0, until=str(tmp_path / "never")))
    story.until(lambda: bool(story.of(Began)))
    cluster.remove_node(extra, allow_graceful=False)
    story.until(lambda: bool(story.of(Over)))
    assert story.over().outcome == "lost"
    assert f"lost on node {extra.node_id[:12]}: Actor" in str(story.over().error)


def stopped(node: Any, number: signal.Signals) -> None:
    """Sends a signal to all processes of a node: a machine that freezes, or thaws."""
    pid = next(process[0].process.pid for name, process in node.all_processes.items() if name == "raylet")
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    for one in [pid, *map(int, children)]:
        os.kill(one, number)


def test_a_frozen_node_loses_its_trial_long_before_ray_sees_it(start: Any, extra: Any, tmp_path: Path) -> None:
    story, _ = start(objectives.go_on, execution={"heartbeat": 5}, resources=EXTRA)
    story.hand(task(0, mark=str(tmp_path / "mark")))
    story.until(lambda: bool(story.of(Row)))
    stopped(extra, signal.SIGSTOP)
    try:
        story.until(lambda: bool(story.of(Over)))
        assert story.over().outcome == "lost"
        assert "it gave no sign of life for 5 s" in str(story.over().error)
        heard = len(story.messages)
    finally:
        stopped(extra, signal.SIGCONT)
    end = time.monotonic() + 3
    story.until(lambda: time.monotonic() > end)
    assert len(story.messages) == heard, "what the thawed worker still says is not heard"


def drain(cluster: Any, node: Any) -> None:
    """Tells a node that it will be preempted in 20 s."""
    command = [Path(sys.executable).parent / "ray", "drain-node", "--address", cluster.address]
    command += ["--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", "spot", "--deadline-remaining-seconds", "20"]
    subprocess.run(command, check=True, capture_output=True)


def test_the_trials_of_a_drained_node_move_at_their_next_checkpoint(
    start: Any, cluster: Any, extra: Any, add: Any
) -> None:
    story, runner = start(step_on, resources=EXTRA, budget={})
    assert runner.slots == 2
    story.hand(task(0))
    story.until(lambda: bool(story.of(Row)))
    drain(cluster, extra)
    story.until(lambda: bool(story.of(Over)))
    assert story.over().outcome == "moved"
    assert runner.slots == 1, "none is there, and there may be one again"
    assert runner.room(5) == 0
    saved = story.of(Saved)[-1]
    other = add(num_cpus=2, resources={"extra": 2})
    story.run(TrialTask(0, 2, {"short": True}, None, (saved.step, saved.checkpoint)))
    assert story.over(0, 2).outcome == "returned"
    began = story.of(Began, 0, 2)[0]
    assert (began.step, began.node) == (saved.step, other.node_id)


def test_trials_begin_on_no_node_that_is_avoided(start: Any, tmp_path: Path) -> None:
    story, runner = start(objectives.hold, budget={})

    def round_of(first: int, size: int) -> set[str]:
        done = tmp_path / f"until-{first}"
        story.hand(*(task(number, until=str(done)) for number in range(first, first + size)))
        story.until(lambda: all(story.of(Began, number) for number in range(first, first + size)))
        end = time.monotonic() + 0.2  # not so short that the next ones are handed ahead
        story.until(lambda: time.monotonic() > end)
        done.touch()
        story.until(lambda: all(story.of(Over, number) for number in range(first, first + size)))
        return {story.of(Began, number)[0].node for number in range(first, first + size)}

    first, second = round_of(0, 4)
    runner.avoid([first])
    assert runner.slots == 2
    assert round_of(10, 2) == {second}
    runner.avoid([second])
    known, landed = {worker.name for worker in runner._here.crew.members}, set()

    def up() -> bool:
        landed.update(worker.node for worker in runner._here.crew.members if worker.name not in known)
        return runner.room(2) == 2

    story.until(up)
    assert landed - {""} == {first}, "Ray keeps new workers off the other node"
    assert round_of(20, 2) == {first}
    runner.avoid([first, second])
    assert runner.slots == 4, "there is no other"
    assert round_of(30, 4) == {first, second}


def test_trials_share_a_gpu_as_ray_shows_it_to_them(start: Any, tmp_path: Path) -> None:
    story, _ = start(where, resources={"cpu": 0.5, "gpu": 0.5}, budget={"concurrency": 2})
    wholes, _ = start(where, resources={"cpu": 0.5, "gpu": 1}, budget={"concurrency": 2})
    for name, one in (("half", story), ("whole", wholes)):
        done = str(tmp_path / f"{name}-until")
        one.hand(*(task(n, gpus=str(tmp_path / f"{name}-{n}"), until=done) for n in range(2)))
        one.until(lambda one=one: all(one.of(Began, n) for n in range(2)))
        Path(done).touch()
        one.until(lambda one=one: all(one.of(Over, n) for n in range(2)))
        one._runner.close()
    half = {(tmp_path / f"half-{n}").read_text() for n in range(2)}
    whole = {(tmp_path / f"whole-{n}").read_text() for n in range(2)}
    assert len(half) == 1
    assert whole == {"0", "1"}


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        ({"cpu": 3}, "no node can hold a trial that needs CPU 3; the most that a node has is CPU 2"),
        (
            {"accelerator": "L4"},
            "accelerator_type:L4 yes; .*accelerator_type:L4 no; accelerator types that it has: none",
        ),
        ({"memory": "1000TiB"}, r"memory 1.02e\+06 GiB; the most that a node has is CPU 2, memory [\d.]+ GiB"),
        ({"custom": {"tape": 1}}, "tape 1; the most that a node has is CPU 2, tape 0"),
        (
            {"bundles": [{"cpu": 3}]},
            r"for its gang CPU 3 \(PACK\); .*a node has is CPU 2, and its 3 nodes together have",
        ),
        ({"bundles": [{"cpu": 2}], "strategy": "STRICT_PACK"}, "no node can hold a trial that needs CPU 1 and for its"),
        (
            {"bundles": [{"cpu": 1}] * 2, "strategy": "STRICT_SPREAD"},
            "the cluster cannot hold a trial that needs CPU 1",
        ),
        ({"bundles": [{"cpu": 0}]}, "resources.bundles: a bundle holds nothing"),
    ],
)
def test_what_no_node_can_hold_is_refused_with_what_there_is(
    tmp_path: Path, cluster: Any, resources: Any, text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        make(objectives.count, str(tmp_path / "study"), resources=resources).open(print)


def all_reduce(config: dict[str, Any]) -> dict[str, float]:
    """Training in miniature: members on the gang's bundles add up their parts, as often as it takes."""
    import ray

    group = ray.util.get_current_placement_group()

    @ray.remote(num_cpus=1)
    class Member:
        def node(self) -> str:
            return str(ray.get_runtime_context().get_node_id())

        def group(self) -> str:
            return str(ray.util.get_current_placement_group().id.hex())

        def add(self, value: float) -> float:
            return value + 1.0

    members = [Member.remote() for _ in group.bundle_specs[1:]]
    nodes = {ray.get(member.node.remote()) for member in members}
    assert {ray.get(member.group.remote()) for member in members} == {group.id.hex()}
    total = sum(ray.get([member.add.remote(float(rank)) for rank, member in enumerate(members)]))
    return {"loss": total, "nodes": float(len(nodes | {ray.get_runtime_context().get_node_id()}))}


def groups(state: str = "CREATED") -> int:
    """How many placement groups there are."""
    from ray.util import placement_group_table

    return sum(group["state"] == state for group in placement_group_table().values())


@pytest.mark.parametrize(
    ("strategy", "cpu", "nodes"), [("STRICT_SPREAD", 1, 2), ("SPREAD", 0.5, 2), ("STRICT_PACK", 0, 1)]
)
def test_what_a_trial_starts_lands_in_its_gang(start: Any, strategy: str, cpu: float, nodes: int) -> None:
    gang = {"cpu": cpu, "bundles": [{"cpu": 1}], "strategy": strategy}
    story, runner = start(all_reduce, resources=gang, budget={"concurrency": 1})
    story.run(task(0), task(1))
    assert story.over().outcome == "returned", story.over().error
    assert story.of(Row)[0].metrics == {"loss": 1.0, "nodes": float(nodes)}
    assert groups() == 1
    runner.close()
    assert groups() == 0


def test_slots_are_counted_in_gangs(start: Any) -> None:
    _, apart = start(objectives.count, resources={"bundles": [{"cpu": 1}], "strategy": "STRICT_SPREAD"}, budget={})
    _, wide = start(objectives.count, resources={"bundles": [{"cpu": 1}] * 2}, budget={})
    assert (apart.slots, wide.slots) == (2, 1)


DRIVER = """
from tests.execution.test_ray_nodes import *
from tune_tasks.execution import cluster, lookout
address, study, resources, patience = sys.argv[1], sys.argv[2], eval(sys.argv[3]), float(sys.argv[4])
cluster._KNOCK_SECONDS = patience
lookout._EVERY = 0.5
runner = make(objectives.hold, study, resources=resources, execution={"address": address}, budget={"concurrency": 1})
story = Story(runner)
story.hand(task(0, until="/nowhere/at/all"))
story.until(lambda: bool(story.of(Began)))
print("runs", flush=True)
try:
    while True:
        runner.wait(0.2)
finally:
    runner.close()
"""


def driver(address: str, study: Path, resources: Any = None, patience: float = 8.0) -> subprocess.Popen[str]:
    """A process that drives one endless trial at an address, or says why it cannot."""
    command = [sys.executable, "-c", DRIVER, address, str(study), repr(resources or {"cpu": 1}), str(patience)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path.cwd())


def test_the_gang_of_a_killed_driver_goes_with_it(start: Any, cluster: Any, tmp_path: Path) -> None:
    process = driver(cluster.address, tmp_path / "other", {"cpu": 1, "bundles": [{"cpu": 1}]})
    assert process.stdout is not None
    assert process.stdout.readline() == "runs\n", process.communicate()
    assert groups() == 1
    process.kill()
    process.communicate()
    end = time.monotonic() + DEADLINE
    while groups():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_cluster_of_another_version_is_refused_with_both(cluster: Any, tmp_path: Path) -> None:
    import json

    from ray.experimental import internal_kv

    key, space = b"CLUSTER_METADATA", b"cluster"
    before = internal_kv._internal_kv_get(key, namespace=space)
    assert before is not None
    old = {**json.loads(before), "ray_version": "2.11.0", "python_version": "3.9.1"}
    internal_kv._internal_kv_put(key, json.dumps(old).encode(), overwrite=True, namespace=space)
    try:
        _, err = driver(cluster.address, tmp_path / "study").communicate(timeout=DEADLINE)
    finally:
        internal_kv._internal_kv_put(key, before, overwrite=True, namespace=space)
    last = err.splitlines()[-1]
    assert f"ConfigError: execution.address: Ray at '{cluster.address}' and this process do not match" in last
    python = ".".join(map(str, sys.version_info[:3]))
    assert all(text in last for text in ("Ray: 2.11.0", "Python: 3.9.1", f"Python: {python}")), last
