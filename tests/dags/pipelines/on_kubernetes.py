"""Two tasks with a cluster on Kubernetes of their own, the first of which fails where it is told to."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task

from tune_tasks_airflow.kuberay import kuberay_cluster


@task
def work(address: str, *, fail: str) -> str:
    """Says where it would work."""
    if fail == "True":
        raise ValueError("as it was told")
    return address


@task
def last() -> None:
    """Needs the one before."""


START = {
    "address": "{{ params.address }}",
    "ready_within": 0.5,
    "poll_interval": 0.1,
    "retries": 1,
    "retry_delay": timedelta(0),
}
with (
    DAG("on_kubernetes", schedule=None, params={"manifest": "", "address": "", "fail": False}),
    kuberay_cluster("{{ params.manifest }}", start=START, stop={"poll_interval": 0.1, "retries": 0}) as cluster,
):
    work(cluster.address, fail="{{ params.fail }}") >> last()
