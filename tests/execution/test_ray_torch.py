"""Distributed training inside a gang: two processes of PyTorch that add up their tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.execution.test_ray import make
from tune_tasks.execution import Row
from tune_tasks.testing.driving import Story, task

pytestmark = pytest.mark.ray
pytest.importorskip("torch", reason="PyTorch is not installed; a CPU build of it is enough")

GANG = {"cpu": 0, "bundles": [{"cpu": 1}, {"cpu": 1}]}


def train(config: dict[str, Any]) -> None:
    """Two processes on the bundles of the gang add their ranks up, once for each step."""
    import ray

    import tune_tasks as tt

    @ray.remote(num_cpus=1)
    class Member:
        def join(self, rank: int, size: int, place: str) -> None:
            import torch.distributed as dist

            dist.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=size)

        def step(self, value: float) -> float:
            import torch
            import torch.distributed as dist

            tensor = torch.tensor([value])
            dist.all_reduce(tensor)
            return float(tensor.item())

    place = tt.get_context().folder / "meeting"
    members = [Member.remote() for _ in range(2)]
    ray.get([member.join.remote(rank, 2, str(place)) for rank, member in enumerate(members)])
    for step in range(3):
        sums = ray.get([member.step.remote(float(step + rank)) for rank, member in enumerate(members)])
        tt.report({"loss": sums[0], "other": sums[1]})


@pytest.mark.usefixtures("local_ray")
def test_the_members_of_a_gang_reduce_over_gloo(tmp_path: Path) -> None:
    runner = make(train, str(tmp_path / "study"), resources=GANG, budget={"concurrency": 1})
    story = Story(runner)
    try:
        story.run(task(0))
    finally:
        runner.close()
    assert story.over().outcome == "returned", story.over().error
    assert [row.metrics for row in story.of(Row)] == [{"loss": 2.0 * n + 1, "other": 2.0 * n + 1} for n in range(3)]
