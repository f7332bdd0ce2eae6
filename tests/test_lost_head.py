"""The head of a cluster dies: who drives trials there says so in time, and a job goes on where the next cluster is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import tune_tasks as tt
from tests.execution.test_ray_nodes import driver
from tests.faults.studies import steps
from tests.servers.processes import free_port
from tests.servers.ray_nodes import Nodes
from tests.studies import events, write_study
from tests.test_attend import LONG, drivers, launch, until, url_of
from tune_tasks.attend import job_name
from tune_tasks.events import Started
from tune_tasks.studies import open_study
from tune_tasks.testing.driving import DEADLINE

pytestmark = pytest.mark.ray


class Place:
    """An address where one cluster after another may be: each test leaves what there is to the next one."""

    def __init__(self) -> None:
        self._port = free_port()
        self._nodes: Nodes | None = None

    def up(self) -> Nodes:
        """The cluster that is there; a new one where there is none."""
        if self._nodes is None:
            self._nodes = Nodes(cpus=2, dashboard=self._port)
        return self._nodes

    def lose(self) -> None:
        """Kills the head, and with it the cluster, as a lost machine dies."""
        if self._nodes is not None:
            nodes, self._nodes = self._nodes, None
            nodes("head")
            nodes.end()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.lose()


def saved(url: str) -> list[int]:
    """The steps of the newest recorded checkpoints of both trials; none where one has none."""
    if not Path(url, "log").is_dir():
        return []
    found = [trial.checkpoint[0] for trial in open_study(url).trials if trial.checkpoint]
    return found if len(found) == 2 else []


def test_a_job_whose_cluster_is_lost_goes_on_at_a_new_one_when_the_step_is_tried_again(
    tmp_path: Path, place: Place
) -> None:
    execution = {"runner": "job", "address": place.up().dashboard}
    spec = write_study(tmp_path, execution=execution, environment={"variables": {"STEP_SECONDS": "0.1"}}, **LONG)
    url, launcher = url_of(spec), launch(spec)
    until(lambda: min(saved(url), default=0) > 3)
    launcher.kill()
    launcher.wait()
    place.lose()
    study = open_study(url)
    recorded, before = saved(url), events(url)
    assert max(recorded) < 40
    assert place.up().dashboard == execution["address"]
    outcome = tt.launch_trials(study, "main-0000")

    assert outcome.states == {"completed": 2}
    assert drivers(url) == [job_name(study.state, 1), job_name(study.state, 2)]
    assert events(url)[: len(before)] == before
    starts = [event for event in events(url) if isinstance(event, Started)]
    assert Counter((event.trial, event.attempt) for event in starts) == Counter([(0, 1), (1, 1), (0, 2), (1, 2)])
    assert {event.trial: event.step for event in starts[2:]} == dict(enumerate(recorded))
    told = steps(url)
    assert told.keys() == {(trial, step) for trial in (0, 1) for step in range(1, 41)}
    assert all(step > recorded[trial] for (trial, step), times in told.items() if times > 1), "run twice though saved"
    assert [trial.failures for trial in study.trials] == [0, 0]


def test_a_lost_head_is_noticed_before_ray_ends_the_driver(tmp_path: Path, place: Place) -> None:
    process = driver(place.up().address, tmp_path / "study")
    assert process.stdout is not None
    assert process.stdout.readline() == "runs\n", process.communicate()
    place.lose()
    try:
        _, err = process.communicate(timeout=2 * DEADLINE)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "Unavailable: the Ray at" in err, err
