"""What becomes of a trial when a node of its gang goes that its worker is not on, on a real cluster on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.execution.test_ray import make
from tests.servers.ray_nodes import HEAD, drain
from tune_tasks.execution import Began, Over, Row, Saved, TrialTask, gang
from tune_tasks.execution.ray import RayRunner
from tune_tasks.testing.driving import Story, task

pytestmark = pytest.mark.ray

APART = {
    "cpu": 0,
    "custom": {"head": 1},
    "bundles": [{"cpu": 0, "custom": {"member": 1}}],
    "strategy": "STRICT_SPREAD",
}
"""A trial on the one node that all tests keep, and its member on one that a test may break."""
QUICK = {"execution": {"stop_grace": 2}, "resources": APART, "budget": {"concurrency": 1}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head on which workers are, and nothing for their members."""
    import ray
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={**HEAD, "num_cpus": 2, "resources": {"head": 2}})
    try:
        ray.init(started.address, namespace="tests", log_to_driver=False, logging_level="ERROR")
        yield started
    finally:
        ray.shutdown()
        started.shutdown()


@pytest.fixture
def add(cluster: Any) -> Iterator[Callable[[], Any]]:
    """Adds a node for a member, for the time of a test."""
    added = []

    def add() -> Any:
        added.append(cluster.add_node(num_cpus=1, resources={"member": 1}))
        return added[-1]

    yield add
    for node in added:
        if node in cluster.list_all_nodes():
            cluster.remove_node(node, allow_graceful=False)


@pytest.fixture
def start(tmp_path: Path, cluster: Any) -> Iterator[Callable[..., tuple[Story, RayRunner]]]:
    runners: list[RayRunner] = []

    def start(objective: Any, **changes: Any) -> Any:
        runner = make(objective, str(tmp_path / "study"), **{**QUICK, **changes})
        runners.append(runner)
        return Story(runner), runner

    yield start
    for runner in runners:
        runner.close()


def train(config: dict[str, Any]) -> None:
    """Counts on with a member on another node, with a checkpoint at each step until the notice."""
    import ray

    import tune_tasks as tt

    @ray.remote(num_cpus=0, resources={"member": 1}, max_restarts=0)
    class Member:
        def add(self, value: int) -> int:
            time.sleep(0.02)
            return value + 1

    context, saved = tt.get_context(), tt.get_checkpoint()
    step = int((saved / "step").read_text()) if saved else 0
    member = Member.remote()
    while step < config.get("steps", 1_000_000):
        if config.get("deaf") and step >= 3:
            time.sleep(0.1)  # as a collective does whose other side is silent
            continue
        step = ray.get(member.add.remote(step))
        (context.folder / "step").write_text(str(step))
        tt.report({"loss": float(step)}, checkpoint=context.folder)


def wrong(config: dict[str, Any]) -> None:
    """Starts, and raises for a reason of its own."""
    raise ArithmeticError("the sky fell")


def goes_on(story: Story, old: Any, new: Any, runner: RayRunner) -> None:
    """Sees the attempt after a loss go on from the newest checkpoint, with a member on a node that is there."""
    over, saved = story.over(), story.of(Saved)[-1]
    assert (over.outcome, over.node) == ("lost", old.node_id)
    assert str(over.error).startswith(f"node {old.node_id[:12]} of its gang was lost")
    story.run(TrialTask(0, 2, {"steps": saved.step + 5}, None, (saved.step, saved.checkpoint)))
    assert story.over(0, 2).outcome == "returned", story.over(0, 2).error
    assert story.steps(0, 2) == list(range(saved.step + 1, saved.step + 6))
    first, second = story.of(Began)[0], story.of(Began, 0, 2)[0]
    assert first.node == second.node
    assert first.worker != second.worker, "a worker whose gang is torn is of no use any more"
    assert {worker.gang for worker in runner._here.crew.members} == {frozenset({new.node_id})}


def test_a_trial_that_raises_as_its_gang_lost_a_node_is_lost_and_goes_on(start: Any, cluster: Any, add: Any) -> None:
    old = add()
    story, runner = start(train)
    story.hand(task(0))
    story.until(lambda: bool(story.of(Saved)))
    cluster.remove_node(old, allow_graceful=False)
    new = add()
    story.until(lambda: bool(story.of(Over)))
    assert "ActorUnavailableError" in str(story.over().error) or "ActorDiedError" in str(story.over().error)
    goes_on(story, old, new, runner)


def test_a_trial_that_hangs_as_its_gang_lost_a_node_is_lost_with_its_worker(start: Any, cluster: Any, add: Any) -> None:
    old = add()
    story, runner = start(train)
    story.hand(task(0, deaf=True))
    story.until(lambda: len(story.of(Saved)) == 3)
    cluster.remove_node(old, allow_graceful=False)
    new = add()
    story.until(lambda: bool(story.of(Over)))
    assert str(story.over().error).endswith("its objective did not end")
    goes_on(story, old, new, runner)


def test_a_failure_while_all_of_the_gang_lives_is_the_trials_own(start: Any, add: Any) -> None:
    node = add()
    story, runner = start(wrong)
    story.run(task(0))
    assert (story.over().outcome, story.over().kind, story.over().node) == ("failed", "ArithmeticError", "")
    assert [worker.gang for worker in runner._here.crew.members] == [{node.node_id}], "it stays warm"
    assert gang.Gang({}).missing() is None


def test_an_idle_worker_whose_gang_lost_a_node_gets_no_trial(start: Any, cluster: Any, add: Any) -> None:
    old = add()
    story, runner = start(train)
    story.run(task(0, steps=2))
    cluster.remove_node(old, allow_graceful=False)
    story.until(lambda: old.node_id in runner._here.nodes.gone)
    new = add()
    story.run(task(1, steps=2))
    assert story.over(1).outcome == "returned"
    assert story.of(Began, 1)[0].worker != story.of(Began)[0].worker
    assert {worker.gang for worker in runner._here.crew.members} == {frozenset({new.node_id})}


def test_a_trial_moves_when_a_node_of_its_gang_is_drained(start: Any, cluster: Any, add: Any) -> None:
    old = add()
    story, runner = start(train)
    story.hand(task(0))
    story.until(lambda: bool(story.of(Row)))
    drain(cluster.address, old.node_id, 20)
    story.until(lambda: bool(story.of(Over)))
    assert (story.over().outcome, story.over().node) == ("moved", "")
    assert set(runner._here.nodes.leaving) == {old.node_id}, "the worker's own node stays"
