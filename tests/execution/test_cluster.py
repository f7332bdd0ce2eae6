"""How many trials fit on nodes; what starts and ends a Ray is tested with the runner."""

from __future__ import annotations

import os

import pytest

from tune_tasks.execution.cluster import _environment, _fit


@pytest.mark.parametrize(
    ("need", "node", "times"),
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
    ],
)
def test_a_node_holds_as_many_trials_as_its_scarcest_resource(
    need: dict[str, float], node: dict[str, float], times: int
) -> None:
    assert _fit(need, node) == times


def test_the_environment_of_ray_is_not_left_in_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TT_SET", "by the user")
    with _environment({"TT_SET": "by us", "TT_NEW": "by us"}):
        assert (os.environ["TT_SET"], os.environ["TT_NEW"]) == ("by the user", "by us")
    assert "TT_NEW" not in os.environ
    assert os.environ["TT_SET"] == "by the user"
