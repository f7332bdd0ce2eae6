"""How this process stands to a Ray; what starts and ends one is tested with the runner."""

from __future__ import annotations

import os

import pytest

from tune_tasks.execution.cluster import _environment


def test_the_environment_of_ray_is_not_left_in_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TT_SET", "by the user")
    with _environment({"TT_SET": "by us", "TT_NEW": "by us"}):
        assert (os.environ["TT_SET"], os.environ["TT_NEW"]) == ("by the user", "by us")
    assert "TT_NEW" not in os.environ
    assert os.environ["TT_SET"] == "by the user"
