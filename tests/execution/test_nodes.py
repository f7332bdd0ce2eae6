"""Which nodes are used, and how many trials run on them, as they are drained, avoided and said to go away."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tune_tasks.execution import nodes as module
from tune_tasks.execution.lookout import Sight
from tune_tasks.execution.nodes import Nodes
from tune_tasks.execution.placement import Shape, Shapes, options
from tune_tasks.sections import Budget, Resources

TWO = {"a": {"CPU": 2.0}, "b": {"CPU": 2.0}}


def nodes(sight: Sight | None = None, resources: dict[str, Any] | None = None, **budget: Any) -> Nodes:
    return Nodes(Budget(**budget), Shape.of(Resources(**(resources or {}))), sight or Sight(TWO, {}))


@pytest.mark.parametrize(
    ("budget", "slots"),
    [({}, 4), ({"share": 0.5}, 2), ({"share": 0.01}, 1), ({"concurrency": 3}, 3), ({"concurrency": 9}, 4)],
)
def test_slots_are_a_share_of_the_cluster_and_at_most_the_concurrency(budget: dict[str, Any], slots: int) -> None:
    assert nodes(**budget).slots == slots


def test_a_node_that_is_drained_is_not_counted_and_comes_back_when_it_stays() -> None:
    one = nodes(Sight(TWO, {"a": time.time() + 5}))
    assert (one.slots, set(one.leaving)) == (2, {"a"})
    one.see(Sight(TWO, {"a": time.time() - 61}))
    assert (one.slots, set(one.leaving)) == (4, set())


def test_a_notice_counts_until_the_node_should_have_gone_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    one = nodes()
    one.notice("b", "SIGTERM", None)
    assert (one.slots, one.leaving["b"].why) == (2, "SIGTERM")
    one.see(Sight(TWO, {}))
    assert one.slots == 2
    monkeypatch.setattr(module, "_FALSE_ALARM", -121.0)
    other = nodes()
    other.notice("b", "SIGTERM", None)
    other.see(Sight(TWO, {}))
    assert other.slots == 4


def test_a_node_that_has_gone_is_forgotten() -> None:
    one = nodes(Sight(TWO, {"a": None}))
    one.see(Sight({"b": {"CPU": 2.0}}, {"a": None}))
    assert (one.slots, one.leaving) == (2, {})


def test_nodes_are_avoided_while_there_are_others() -> None:
    one = nodes()
    one.avoid(["a", "gone"])
    assert (one.slots, one.shunned) == (2, {"a"})
    one.avoid(["a", "b"])
    assert (one.slots, one.shunned) == (4, set())
    one.see(Sight({**TWO, "c": {"CPU": 1.0}}, {}))
    assert (one.slots, one.shunned) == (1, {"a", "b"})


def test_a_node_that_does_not_answer_gets_no_new_worker_for_a_while_if_there_are_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = nodes()
    one.doubt(["a", "gone"])
    assert (one.closed, one.shunned) == ({"a"}, set())
    one.doubt(["b"])
    assert one.closed == set()
    one.see(Sight({"a": {"CPU": 2.0}, "c": {"CPU": 2.0}}, {}))
    assert one.closed == {"a"}
    one.see(Sight({"a": {"CPU": 2.0}, "c": {"CPU": 2.0}}, {"c": None}))
    assert one.closed == set()
    monkeypatch.setattr(module, "_DOUBT", 0.0)
    one = nodes()
    one.doubt(["a"])
    assert one.closed == set()


def test_the_only_node_is_never_closed_also_for_trials_that_ask_for_nothing() -> None:
    one = nodes(Sight({"a": {"CPU": 2.0}}, {}), resources={"cpu": 0}, concurrency=3)
    one.doubt(["a"])
    one.avoid(["a"])
    assert (one.closed, one.slots) == (set(), 3)


def test_there_is_a_slot_even_where_no_node_is_left() -> None:
    one = nodes()
    one.see(Sight({}, {}))
    assert one.slots == 1


def test_trials_that_ask_for_nothing_are_as_many_as_there_are_cores() -> None:
    assert nodes(resources={"cpu": 0}).slots == 4
    assert nodes(resources={"cpu": 0}, concurrency=9).slots == 9


def test_ray_is_told_to_keep_workers_off_nodes_that_are_avoided() -> None:
    shape = Shape.of(Resources())
    assert options(shape, None, ["b", "a"])["label_selector"] == {"ray.io/node-id": "!in(a,b)"}
    assert "label_selector" not in options(shape, None, [])


def test_shapes_are_equal_where_ray_would_be_asked_for_the_same() -> None:
    named = Resources(cpu=2, function="tests.execution.test_nodes:nodes")
    assert Shape.of(named) == Shape.of(Resources(cpu=2)) != Shape.of(Resources(cpu=2, gpu=1))
    assert Shapes(Resources(), None).vary is False


@pytest.mark.parametrize(
    ("budget", "ahead"),
    [
        ({}, 6),
        ({"share": 0.5}, 5),
        ({"share": 0.5, "concurrency": 4}, 1),
        ({"concurrency": 99}, 0),
    ],
)
def test_an_autoscaler_is_asked_for_as_many_slots_again_and_not_beyond_the_concurrency(
    budget: dict[str, Any], ahead: int
) -> None:
    sight = Sight({"a": {"CPU": 6.0}}, {})
    shape = Shape.of(Resources())
    assert Nodes(Budget(**budget), shape, sight, autoscaler=True).ahead == ahead
    assert Nodes(Budget(**budget), shape, sight).ahead == 0
