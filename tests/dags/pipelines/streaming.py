"""A study of the tests that streams, whatever its spec says."""

from __future__ import annotations

from airflow.sdk import DAG

from tune_tasks_airflow.rounds import tune_streaming

with DAG("streaming", schedule=None, params={"spec": "", "overrides": {}}):
    tune_streaming("{{ params.spec }}", overrides="{{ params.overrides | tojson }}")
    tune_streaming("{{ params.spec }}", group_id="again", run="again", overrides={"budget.trials": 3, "name": "few"})
