"""What a new champion of the nightly study sets off: it is deployed."""

from __future__ import annotations

from airflow.sdk import DAG, AssetAlias

from tune_tasks_airflow.operators import DeployOperator

with DAG("following", schedule=[AssetAlias("small-champion")]):
    DeployOperator(task_id="deploy", study="{{ (triggering_asset_events.values() | first | last).extra.study }}")
