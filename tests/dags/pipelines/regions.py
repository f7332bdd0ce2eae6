"""One study for each region, as one mapped task, and a promotion of each."""

from __future__ import annotations

from airflow.sdk import DAG, task

from tune_tasks_airflow.launch import TuneOperator
from tune_tasks_airflow.operators import PromoteBestOperator

with DAG("regions", schedule=None, params={"spec": "", "regions": ["eu", "us"]}):

    @task
    def names(params=None):  # type: ignore[no-untyped-def]
        return [{"name": region, "promotion.model": region} for region in params["regions"]]

    @task
    def urls(found):  # type: ignore[no-untyped-def]
        return [each["study"] for each in found]

    search = TuneOperator.partial(task_id="search", study="{{ params.spec }}").expand(overrides=names())
    PromoteBestOperator.partial(task_id="promote").expand(study=urls(search.output))
