"""What of a spec's environment reaches Ray, in a form that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tune_tasks.errors import ConfigError
from tune_tasks.execution.environment import refused, runtime_env, worker_env
from tune_tasks.studies import open_study
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


def test_an_objective_that_only_the_image_has_is_looked_for_nowhere_else(tmp_path: Path) -> None:
    given = {"store": str(tmp_path), "execution": {"runner": "ray"}}
    with pytest.raises(ConfigError, match="objective: 'only_there:train' cannot be imported"):
        open_study(spec_for("only_there:train", **given))
    assert open_study(spec_for("only_there:train", **given, environment={"image": "team/train:1"})).state.study


def test_a_quote_that_no_image_would_survive_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "hush'hush")
    environment = {"variables": {"GREETING": "it's me", "PLAIN": "yes, it is"}, "secrets": ["A_KEY"]}
    assert worker_env(spec_for("objective:train", environment=environment), None)["env_vars"]["A_KEY"] == "hush'hush"
    with pytest.raises(ConfigError) as raised:
        worker_env(spec_for("objective:train", environment={"image": "team/train:1", **environment}), None)
    assert str(raised.value).startswith("environment: GREETING, A_KEY has a single quote")
    assert "hush" not in str(raised.value)


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


def test_an_image_that_cannot_be_run_is_named_with_its_node_and_what_podman_said() -> None:
    said = """Failed to set up runtime environment.
[Node 192.0.2.7] Traceback (most recent call last):
  File "image_uri.py", line 49, in _create_impl
RuntimeError: Podman command failed: cmd=['podman', 'run', '--rm', '-v', '/tmp/a1:/shared:Z', 'team/train:1', 'python',\
 '-c', "\\nimport ray"], returncode=125, stdout=, stderr=Trying to pull team/train:1...
Error: short-name "team/train:1" did not resolve to an alias

"""
    assert str(refused(RuntimeError(said))) == (
        "environment: Ray cannot set it up: node 192.0.2.7 cannot run environment.image 'team/train:1', which must "
        "hold Ray for its `python`; podman says: Trying to pull team/train:1...\n"
        'Error: short-name "team/train:1" did not resolve to an alias'
    )
