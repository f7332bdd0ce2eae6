"""A whole study of the tests, in rounds."""

from __future__ import annotations

from airflow.sdk import DAG

from tune_tasks_airflow.rounds import tune_rounds

with DAG("small", schedule=None, params={"spec": ""}):
    tune_rounds("{{ params.spec }}", rounds=6)
