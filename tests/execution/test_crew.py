"""How many workers a study keeps, on a cluster that grows and shrinks; Ray's actors are the only thing not there."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import pytest

from tune_tasks.execution import hired
from tune_tasks.execution.crew import Crew
from tune_tasks.execution.hired import Clock, Kit
from tune_tasks.execution.lookout import Sight
from tune_tasks.execution.nodes import Nodes
from tune_tasks.execution.placement import Shape
from tune_tasks.testing import objectives
from tune_tasks.testing.driving import spec_for

ONE, TWO = {"a": {"CPU": 2.0}}, {"a": {"CPU": 2.0}, "b": {"CPU": 2.0}}
FOUR = {**TWO, "c": {"CPU": 2.0}, "d": {"CPU": 2.0}}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Crew, Nodes, Shape]:
    """A study with half of a cluster that an autoscaler may let grow."""
    monkeypatch.setattr(hired, "_actor_class", MagicMock)
    spec = spec_for(objectives.count, budget={"share": 0.5}, execution={"autoscaler": True})
    shape = Shape.of(spec.resources)
    nodes = Nodes(spec.budget, shape, Sight(ONE, {}), autoscaler=True)
    return Crew(Kit(spec, None, {}), str(tmp_path / "study"), nodes, Clock()), nodes, shape


def places(crew: Crew) -> list[str]:
    """Where the workers are that are up and stay."""
    return [worker.node for worker in crew.members if worker.node and worker.left_by is None]


def test_workers_that_waited_for_a_node_and_are_above_the_share_of_it_are_given_back_at_once(
    cluster: tuple[Crew, Nodes, Shape],
) -> None:
    crew, nodes, shape = cluster
    crew.provide({shape: 5})
    assert (len(crew.members), sum(worker.scout for worker in crew.members)) == (5, 4)
    nodes.see(Sight(TWO, {}))
    crew.members[0].node = "a"
    for scout in [worker for worker in crew.members if worker.scout][:2]:
        scout.node = "b"  # both places of the new node, of which one is another study's
    crew.provide({shape: 5})
    assert places(crew) == ["a", "b"]


def test_of_workers_above_the_share_none_is_sent_away_that_has_a_trial(cluster: tuple[Crew, Nodes, Shape]) -> None:
    crew, nodes, shape = cluster
    nodes.see(Sight(FOUR, {}))
    crew.provide({shape: 4})
    for worker, node in zip(crew.members, reversed(FOUR), strict=True):
        worker.node = node
        worker.tasks = {0: MagicMock()} if node in "ab" else {}
    nodes.see(Sight(TWO, {}))
    crew.provide({shape: 4})
    assert places(crew) == ["b", "a"]


def test_a_worker_that_is_kept_off_a_node_without_need_any_more_is_hired_anew(
    cluster: tuple[Crew, Nodes, Shape], monkeypatch: pytest.MonkeyPatch
) -> None:
    crew, nodes, shape = cluster
    nodes.see(Sight(TWO, {}))
    nodes.doubt(["b"])
    crew.provide({shape: 2})
    crew.members[0].node = "a"
    crew.tend()
    assert [worker.avoided for worker in crew.members] == [{"b"}, {"b"}]
    monkeypatch.setattr(hired.Hired, "kill", MagicMock())
    monkeypatch.setattr(nodes, "_doubted", {})  # as after the while for which it is in doubt
    crew.tend()
    crew.provide({shape: 2})
    assert [worker.avoided for worker in crew.members] == [{"b"}, set()]
