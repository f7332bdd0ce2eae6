"""What is said of a trial whose worker Ray ends as its node runs out of memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.execution.test_ray import make
from tune_tasks.execution import Over
from tune_tasks.testing import objectives
from tune_tasks.testing.driving import Story, task

pytestmark = pytest.mark.ray


@pytest.fixture
def full_ray() -> Iterator[None]:
    """A Ray that takes its node for full, whatever it holds, and ends a worker every few seconds: none is used up."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_memory_usage_threshold", "0.001")
        patch.setenv("RAY_memory_monitor_refresh_ms", "12000")
        ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.mark.usefixtures("full_ray")
def test_a_worker_that_ray_ends_for_memory_is_lost_by_that_name(tmp_path: Path) -> None:
    runner = make(objectives.hold, str(tmp_path / "study"), budget={"concurrency": 1})
    story = Story(runner)
    try:
        story.hand(task(0, until=str(tmp_path / "never")))
        story.until(lambda: bool(story.of(Over)))
    finally:
        runner.close()
    over = story.over()
    assert (over.outcome, over.kind) == ("lost", "OutOfMemoryError")
    assert "Ray ended it, as its node ran out of memory; let fewer trials run at once" in str(over.error)
