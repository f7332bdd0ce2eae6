"""What Airflow finds when it looks for providers, and what a DAG file that uses this one loads."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import airflow
import jsonschema
import pytest
from airflow.providers_manager import ProvidersManager

import tune_tasks_airflow
from tests.airflow_home import BUNDLES
from tune_tasks.steps import STEPS
from tune_tasks_airflow import approvals, clusters, kuberay, launch, local, operators, rounds, scheduled
from tune_tasks_airflow.get_provider_info import get_provider_info

HEAVY = {"mlflow", "numpy", "optuna", "pandas", "ray", "sklearn", "tune_tasks.spec", "tune_tasks.steps"}
SCHEMA = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text(encoding="utf-8"))
MODULES = (operators, launch, rounds, scheduled, approvals, clusters, kuberay, local)
OPERATORS = {
    each.step: each
    for module in (operators, launch)
    for each in vars(module).values()
    if isinstance(each, type) and hasattr(each, "step")
}


def loaded_by(statement: str) -> set[str]:
    """What a fresh process has loaded after a statement, of what a DAG file must not load."""
    program = f"{statement}\nimport sys\nprint('loaded', *({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()) - {"loaded"}


def test_the_provider_describes_itself_as_airflow_asks():
    info = get_provider_info()
    jsonschema.validate(info, SCHEMA)
    assert set(info) <= set(SCHEMA["properties"])


def test_an_airflow_that_is_too_old_is_said_at_import(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: {"apache-airflow-core": "2.11.0"}[name])
    with pytest.raises(ImportError, match=r"needs Airflow 3\.1 or newer, and this one is 2\.11\.0"):
        importlib.reload(tune_tasks_airflow)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "3.10.0rc1")
    importlib.reload(tune_tasks_airflow)


def test_airflow_finds_the_plugin():
    (found,) = entry_points(group="airflow.plugins", name="tune_tasks")
    assert found.load().name == "tune_tasks"


def test_airflow_finds_the_provider():
    found = ProvidersManager().providers["tune-tasks-airflow"]
    assert found.version == version("tune-tasks-airflow")
    assert found.data["operators"] == get_provider_info()["operators"]


def test_the_modules_that_the_provider_names_hold_its_operators():
    (named,) = get_provider_info()["operators"]
    assert named["python-modules"] == [module.__name__ for module in MODULES]


def test_there_is_an_operator_for_every_step_with_its_options_as_template_fields():
    assert {name: OPERATORS[name].options for name in STEPS} == {step.name: step.options for step in STEPS.values()}
    for each in OPERATORS.values():
        assert {"study", "overrides", *each.options} <= set(each.template_fields)


@pytest.mark.parametrize(
    "statement",
    [
        "import tune_tasks_airflow, tune_tasks_airflow.get_provider_info as info; info.get_provider_info()",
        "import tune_tasks_airflow.operators, tune_tasks_airflow.rounds",
        "import tune_tasks_airflow.scheduled, tune_tasks_airflow.approvals",
        "import tune_tasks_airflow.kuberay, tune_tasks_airflow.local",
        f"import runpy; runpy.run_path({str(BUNDLES['project'] / 'digits.py')!r})",
        f"import runpy; runpy.run_path({str(BUNDLES['project'] / 'retrain.py')!r})",
        f"import runpy; runpy.run_path({str(BUNDLES['tests'] / 'small.py')!r})",
    ],
)
def test_nothing_heavy_is_loaded_by(statement):
    assert loaded_by(statement) == set()


def test_a_heavy_import_in_a_dag_file_is_noticed(tmp_path):
    (tmp_path / "heavy.py").write_text("import numpy\n")
    assert loaded_by(f"import runpy; runpy.run_path({str(tmp_path / 'heavy.py')!r})") == {"numpy"}
