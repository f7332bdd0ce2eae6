"""One round of a study of the tests whose trials run in its Ray job; the launch waits in the triggerer, or in a worker.

A DAG for each: `cluster` is deferred, `cluster_attended` keeps its worker.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, chain

from tune_tasks_airflow.launch import LaunchTrialsOperator
from tune_tasks_airflow.operators import EvaluateAndPruneOperator, SampleOperator

for name, deferrable in {"cluster": True, "cluster_attended": False}.items():
    retries = {"retries": 2, "retry_delay": timedelta(seconds=1)}
    with DAG(name, schedule=None, params={"spec": ""}, default_args=retries):
        sample = SampleOperator(task_id="sample", study="{{ params.spec }}", round=0)
        launch = LaunchTrialsOperator(
            task_id="launch_trials",
            study="{{ params.spec }}",
            batch=sample.output,
            deferrable=deferrable,
            poll_interval=0.5,
        )
        evaluate = EvaluateAndPruneOperator(
            task_id="evaluate_and_prune", study="{{ params.spec }}", batch=sample.output
        )
        chain(sample, launch, evaluate)
