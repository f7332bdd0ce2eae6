"""What an autoscaler hears of a study, and what comes of it: a real one, which adds nodes to this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.execution.test_ray import make
from tests.servers.ray_autoscaler import autoscaler
from tune_tasks.execution import Began, Over
from tune_tasks.testing import objectives
from tune_tasks.testing.driving import DEADLINE, Story, task

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A head with two slots, to which an autoscaler adds up to two nodes of two."""
    import ray

    with autoscaler(tmp_path_factory.mktemp("ray"), cpus=2, most=2) as started:
        ray.init(started, namespace="tests", log_to_driver=False, logging_level="ERROR")
        try:
            yield started
        finally:
            ray.shutdown()


def test_a_study_with_a_share_has_the_cluster_grow_and_takes_no_place_of_another(address: str, tmp_path: Path) -> None:
    half = {"budget": {"share": 0.5}, "execution": {"autoscaler": True}}
    runners = [make(objectives.hold, str(tmp_path / name), **half) for name in ("one", "two")]
    one, two = (Story(runner) for runner in runners)
    until = tmp_path / "until"
    try:
        assert [runner.slots for runner in runners] == [1, 1]
        one.hand(task(0, until=str(until)))
        one.until(lambda: bool(one.of(Began)))
        head = one.of(Began)[0].node

        def grown() -> bool:
            runners[0].room(5)  # so many trials wait
            up = [worker.node for worker in runners[0]._here.crew.members]
            assert up.count(head) <= runners[0].slots, "it takes what is not its share"
            return runners[0].slots > 1

        one.until(grown)
        one.hand(task(1, until=str(until)))
        one.until(lambda: bool(one.of(Began, 1)))
        end = time.monotonic() + DEADLINE
        while not runners[1].room(1):
            assert time.monotonic() < end, "the first study took the new nodes for itself"
            runners[0].room(3)  # so many wait still; it looks after its workers, as a driver of its own would
            runners[0].wait(0.05)
            runners[1].wait(0.05)
        two.hand(task(0, until=str(until)))
        two.until(lambda: bool(two.of(Began)))
        until.touch()
        one.until(lambda: bool(one.of(Over) and one.of(Over, 1)))
        two.until(lambda: bool(two.of(Over)))
    finally:
        for runner in runners:
            runner.close()


def test_what_no_node_holds_yet_is_left_to_the_autoscaler(
    address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tape = {"cpu": 1, "custom": {"tape": 1}}
    runner = make(objectives.count, str(tmp_path / "study"), resources=tape, execution={"autoscaler": True})
    runner.open(lambda _: None)
    runner.close()
    assert "no node that is there can hold a trial; it is left to the cluster's autoscaler" in caplog.text
