"""A study of the tests in rounds, which a parameter has begin anew."""

from __future__ import annotations

from airflow.sdk import DAG

from tune_tasks_airflow.rounds import tune_rounds

with DAG("anew", schedule=None, params={"spec": "", "new_study": ""}):
    tune_rounds("{{ params.spec }}", rounds=8, new_study="{{ params.new_study }}")
