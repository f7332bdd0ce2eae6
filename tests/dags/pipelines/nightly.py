"""A study of the tests on a schedule: begun, tuned in rounds, and promoted when a person agrees, where one has to."""

from __future__ import annotations

from airflow.sdk import DAG, Asset, AssetAlias

from tune_tasks_airflow.approvals import approval
from tune_tasks_airflow.rounds import tune_rounds
from tune_tasks_airflow.scheduled import RetrainOperator

with DAG("nightly", schedule=None, params={"spec": "", "data": "", "overrides": {}}):
    begun = RetrainOperator(
        task_id="begin",
        study="{{ params.spec }}",
        data="{{ params.data }}",
        overrides="{{ params.overrides | tojson }}",
    )
    study = begun.output["study"]
    tuned = tune_rounds(study, rounds=4, count=9)
    approval(study, model=tuned.output, outlets=[AssetAlias("small-champion"), Asset("small-plain")])
