"""One real local Ray for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


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
