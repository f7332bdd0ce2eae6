"""What of a spec's environment reaches Ray, in a form that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tune_tasks.errors import ConfigError
from tune_tasks.execution.environment import refused, runtime_env, worker_env
from tune_tasks.testing.driving import spec_for


def taken(given: dict[str, Any]) -> dict[str, Any]:
    """What Ray makes of it; it raises for what does not go together."""
    from ray.runtime_env import RuntimeEnv

    return RuntimeEnv(**given).to_dict()


def test_an_image_reaches_ray_with_its_variables_and_without_a_folder(tmp_path: Path) -> None:
    (tmp_path / "objective.py").write_text("")
    environment = {"image": "registry.example/team/train:1", "variables": {"PLAIN": "yes"}}
    spec = spec_for("objective:train", environment=environment)
    expected = {"image_uri": "registry.example/team/train:1", "env_vars": {"PLAIN": "yes"}}
    assert taken(worker_env(spec, None)) == taken(runtime_env(spec, str(tmp_path))) == expected


def test_the_folder_of_the_objective_goes_with_packages(tmp_path: Path) -> None:
    (tmp_path / "objective.py").write_text("")
    spec = spec_for("objective:train", environment={"uv": ["numpy"]})
    assert runtime_env(spec, str(tmp_path))["working_dir"] == str(tmp_path)
    assert taken(worker_env(spec, None))["uv"]["packages"] == ["numpy"]


def test_a_list_of_packages_is_read_beside_the_spec(tmp_path: Path) -> None:
    (tmp_path / "needs.txt").write_text("# of the trials\n\nnumpy==2.1.0\n  torch ; python_version > '3'\n")
    spec = spec_for("objective:train", environment={"pip": "needs.txt"})
    assert runtime_env(spec, str(tmp_path))["pip"] == ["numpy==2.1.0", "torch ; python_version > '3'"]
    with pytest.raises(ConfigError, match=r"environment\.pip: .needs\.txt. cannot be read; .*needs\.txt is not there"):
        runtime_env(spec, str(tmp_path / "elsewhere"))


def test_that_podman_is_missing_is_said_first() -> None:
    told = refused(RuntimeError("... FileNotFoundError: [Errno 2] No such file or directory: 'podman'"))
    assert str(told).startswith("environment: Ray cannot set it up: a node has no podman, by which Ray runs")
    assert "podman" not in str(refused(RuntimeError("no space left on device")))
