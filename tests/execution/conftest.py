"""One real local Ray for all tests of a module, and runners on it that are closed with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tune_tasks.testing.driving import Story

if TYPE_CHECKING:
    from tune_tasks.execution.ray import RayRunner


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray with four slots, whatever the machine has, and one resource of its own."""
    import os

    import ray

    from tune_tasks.execution.cluster import _quieten

    _quieten()
    os.environ.pop("PYTHONUNBUFFERED", None)  # its workers must buffer as they do for a user
    ray.init(
        address="local",
        num_cpus=4,
        resources={"special": 1},
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        namespace="tests",
    )
    yield
    ray.shutdown()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where a study of the test is."""
    return str(tmp_path / "study")


@pytest.fixture
def start(url: str, local_ray: None) -> Iterator[Callable[..., tuple[Story, RayRunner]]]:
    """Opens a runner with an objective, and gives what is heard of it and the runner."""
    from tests.execution.test_ray import make

    runners: list[RayRunner] = []

    def start(objective: Any, on_message: Callable[[Any], None] = lambda _: None, **changes: Any) -> Any:
        runners.append(make(objective, url, **changes))
        return Story(runners[-1], on_message), runners[-1]

    yield start
    for runner in runners:
        runner.close()
