"""A cluster that takes jobs and runs none, for what needs a dashboard but no trial; `test_kills` has a real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.execution.test_jobs import Answer, dashboard
from tune_tasks.events import Launched
from tune_tasks.studies import Study, append


class Cluster:
    """What was asked of it; `job` is what it says of every job that was submitted."""

    address = ""

    def __init__(self) -> None:
        self.job = {"status": "RUNNING", "message": ""}
        self.submitted: list[str] = []
        self.stopped: list[str] = []
        self.away = False

    def answer(self, method: str, path: str) -> Answer:
        name = path.removeprefix("/api/jobs/").partition("/")[0]
        if self.away:
            return 503, "bad gateway"
        if path.startswith("/api/packages"):
            return 200, {}
        if path == "/api/version":
            return 200, {"ray_version": "2.60.0"}
        if method == "POST" and path.endswith("/stop"):
            self.stopped.append(name)
            self.job = {"status": "STOPPED", "message": ""}
            return 200, {"stopped": True}
        if method == "POST":
            self.submitted.append(path)
            self.job = {"status": "RUNNING", "message": ""}
            return 200, {}
        return (200, self.job) if self.submitted else (404, "no such job")


@contextmanager
def fake_cluster() -> Iterator[Cluster]:
    """Runs one for as long as the block lasts."""
    made = Cluster()
    with dashboard(made.answer) as (address, _):
        made.address = address
        yield made


def launched(study: Study, batch: str = "main-0000") -> None:
    """Records that a launch step is over, as the job's driver does."""
    over = Launched(
        key=f"{batch}/launch", batch=batch, states={"paused": 4}, best=None, value=None, reason="ran", time=1.0
    )
    append(study, lambda _: over)
