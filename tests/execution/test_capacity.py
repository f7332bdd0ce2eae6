"""How many trials, and gangs, the nodes of a cluster hold; that Ray agrees is shown with a real one."""

from __future__ import annotations

from typing import Any

import pytest

from tune_tasks.execution.capacity import count, offer, shown, times


@pytest.mark.parametrize(
    ("need", "node", "fits"),
    [
        ({"CPU": 1}, {"CPU": 4.0}, 4),
        ({"CPU": 1, "GPU": 1}, {"CPU": 4.0, "GPU": 2.0}, 2),
        ({"CPU": 0.1}, {"CPU": 0.3}, 3),
        ({"GPU": 0.3}, {"GPU": 2.0}, 6),  # three on each
        ({"GPU": 0.7}, {"GPU": 2.0}, 2),  # not 2.0 / 0.7 rounded down by chance: one on each
        ({"GPU": 0.4}, {"GPU": 2.0}, 4),  # not five
        ({"GPU": 2}, {"GPU": 5.0}, 2),
        ({"CPU": 8}, {"CPU": 4.0}, 0),
        ({"fast_disk": 1}, {"CPU": 4.0}, 0),
        ({"CPU": 1, "accelerator_type:L4": 0.001}, {"CPU": 4.0, "accelerator_type:L4": 1.0}, 4),
    ],
)
def test_a_node_holds_as_many_trials_as_its_scarcest_resource(
    need: dict[str, float], node: dict[str, float], fits: int
) -> None:
    assert times(need, node) == fits


PAIR = [{"CPU": 1.0}, {"CPU": 1.0}]


@pytest.mark.parametrize(
    ("needs", "strategy", "nodes", "fits"),
    [
        (PAIR, "PACK", [{"CPU": 3.0}, {"CPU": 3.0}], 3),  # one of them on both nodes
        (PAIR, "STRICT_PACK", [{"CPU": 3.0}, {"CPU": 3.0}], 2),
        (PAIR, "STRICT_SPREAD", [{"CPU": 3.0}, {"CPU": 3.0}], 3),
        (PAIR, "STRICT_SPREAD", [{"CPU": 6.0}], 0),
        (PAIR, "SPREAD", [{"CPU": 6.0}], 3),
        ([{"CPU": 1.0}, {"GPU": 4.0}], "PACK", [{"CPU": 8.0}, {"CPU": 1.0, "GPU": 8.0}], 2),
        ([{"CPU": 1.0}, {"GPU": 4.0}], "STRICT_PACK", [{"CPU": 8.0}, {"CPU": 1.0, "GPU": 8.0}], 1),
        ([{"CPU": 1.0}], "PACK", [], 0),
    ],
)
def test_gangs_are_placed_as_their_strategy_says(
    needs: list[dict[str, float]], strategy: str, nodes: list[dict[str, float]], fits: int
) -> None:
    assert count(needs, strategy, nodes) == fits


def test_what_a_cluster_has_is_said_in_the_terms_of_the_question() -> None:
    nodes: list[dict[str, Any]] = [
        {"CPU": 4.0, "GPU": 1.0, "memory": 2.0**31},
        {"CPU": 8.0, "accelerator_type:T4": 1.0},
    ]
    assert offer([{"CPU": 9.0, "memory": 1.0}], nodes) == "the most that a node has is CPU 8, memory 2 GiB"
    assert offer([{"CPU": 9.0}, {"GPU": 3.0}], nodes) == (
        "the most that a node has is CPU 8, GPU 1, and its 2 nodes together have CPU 12, GPU 1"
    )
    assert "accelerator types that it has: T4" in offer([{"accelerator_type:L4": 0.001}], nodes)
    assert offer([{"CPU": 1.0}], []) == "the cluster has no nodes"


def test_memory_is_shown_in_gibibytes() -> None:
    assert shown({"CPU": 0.5, "memory": 3 * 2.0**29, "disk": 2.0}) == "CPU 0.5, memory 1.5 GiB, disk 2"
