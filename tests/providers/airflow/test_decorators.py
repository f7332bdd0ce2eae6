"""The decorators: a function that names a study is a task, with the operator's options and Airflow's context."""

from __future__ import annotations

from pathlib import Path

import tune_tasks as tt
from tests.airflow_home import run
from tests.studies import write_study
from tune_tasks_airflow.get_provider_info import get_provider_info


def test_a_study_that_python_makes_is_searched_and_promoted(tmp_path: Path) -> None:
    done = run("tests", "decorated", {"spec": str(write_study(tmp_path)), "trials": 3})
    assert set(done.states.values()) == {"success"}
    assert done.result("search")["done"]
    assert done.result("search")["study"] == str(tmp_path / "studies" / "small")
    assert done.result("winner")["promoted"]
    assert len(tt.open_study(done.result("search")["study"]).trials) == 3


def test_airflow_is_told_of_every_decorator() -> None:
    import tune_tasks_airflow.decorators as module

    named = {each["name"]: each["class-name"] for each in get_provider_info()["task-decorators"]}
    assert set(named) == {name for name in vars(module) if name.startswith("tune_")}
    assert all(path == f"{module.__name__}.{name}" for name, path in named.items())
