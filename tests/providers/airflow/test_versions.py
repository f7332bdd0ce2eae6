"""The older Airflows that the provider works with: its wheel installs into them without Ray, and every DAG is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_packaging import ROOT, uv

pytestmark = pytest.mark.slow

PROGRAM = """
import importlib, json, pkgutil, runpy, sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
import tune_tasks, tune_tasks_airflow
from airflow.sdk import DAG

modules = [f"tune_tasks_airflow.{module.name}" for module in pkgutil.iter_modules(tune_tasks_airflow.__path__)]
for name in modules:
    importlib.import_module(name)
dags = {}
for file in sorted(Path(sys.argv[1]).glob("*.py")):
    found = runpy.run_path(str(file)).values()
    dags[file.stem] = sorted({dag.dag_id for dag in found if isinstance(dag, DAG)})
print(json.dumps({
    "airflow": version("apache-airflow"),
    "from": [tune_tasks.__file__, tune_tasks_airflow.__file__],
    "modules": modules,
    "dags": dags,
    "ray": find_spec("ray") is not None,
}))
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("dist")
    for project in (ROOT, ROOT / "providers" / "airflow"):
        uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, project)
    return sorted(folder.glob("*.whl"))


@pytest.mark.parametrize("version", ["3.1", "3.2"])
def test_the_wheels_install_without_ray_and_every_module_and_dag_loads(
    version: str, wheels: list[Path], tmp_path: Path
) -> None:
    place, pins = tmp_path / "venv", ROOT / "requirements" / f"airflow-{version}.txt"
    python = place / "bin" / "python"
    uv("venv", "--python", sys.executable, place)
    command = ("pip", "install", "--python", python, "--requirement", pins, *wheels)
    try:
        uv(*command, "--offline")
    except subprocess.CalledProcessError:  # the first time on a machine
        uv(*command)
    settings = {"AIRFLOW_HOME": str(tmp_path / "home"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run(
        [python, "-c", PROGRAM, ROOT / "dags"],
        cwd=tmp_path,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["airflow"].startswith(f"{version}.")
    assert all(Path(file).is_relative_to(place) for file in found["from"])
    assert not found["ray"]
    assert {"tune_tasks_airflow.launch", "tune_tasks_airflow.kuberay"} <= set(found["modules"])
    assert set(found["dags"]) == {file.stem for file in (ROOT / "dags").glob("*.py")}
    assert all(found["dags"].values())
