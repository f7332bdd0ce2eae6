"""A DAG and the plain loop leave the same log, step by step, for the same spec and seed."""

from __future__ import annotations

from pathlib import Path

import pytest

import tune_tasks as tt
from tests.airflow_home import run
from tests.studies import story, write_study
from tune_tasks_airflow.operators import pipeline_name, run_name


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_dag_leaves_the_log_of_the_plain_loop(tmp_path: Path, sampler: str) -> None:
    changes = {"sampler": {"name": sampler, "seed": 7}}
    done = run("tests", "small", {"spec": str(write_study(tmp_path / "dag", **changes))})
    assert set(done.states.values()) == {"success", "skipped"}  # the rounds after the last verdict

    begun = tt.open_study(write_study(tmp_path / "loop", **changes), pipeline=pipeline_name("small"))
    study = tt.tune(begun, run=run_name("small", done.id))
    tt.promote_best(study, run=run_name("small", done.id))
    told = story(study.url)
    assert told[-1]["type"] == "promoted"
    assert story(str(tmp_path / "dag" / "studies" / "small")) == told
