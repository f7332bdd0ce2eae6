"""One round of a study of the tests on a Ray of its own, and then a task that fails where it is told to."""

from __future__ import annotations

from airflow.sdk import DAG, task

from tune_tasks_airflow.local import local_cluster
from tune_tasks_airflow.rounds import tune_rounds


@task
def last(*, fail: str) -> None:
    """The end of the work on the cluster."""
    if fail == "True":
        raise ValueError("as it was told")


with (
    DAG("on_this_machine", schedule=None, params={"spec": "", "fail": False}),
    local_cluster(num_cpus=2) as cluster,
):
    search = tune_rounds("{{ params.spec }}", rounds=1, launch={"address": cluster.address})
    search >> last(fail="{{ params.fail }}")
