"""One round of a study of the tests, each task with a second try."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from tune_tasks_airflow.rounds import tune_rounds

with DAG(
    "once",
    schedule=None,
    params={"spec": "", "overrides": {}, "store_conn_id": ""},
    default_args={"retries": 1, "retry_delay": timedelta(0)},
):
    tune_rounds(
        "{{ params.spec }}",
        rounds=1,
        overrides="{{ params.overrides | tojson }}",
        store_conn_id="{{ params.store_conn_id }}",
    )
