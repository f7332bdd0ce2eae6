"""A Ray cluster for one run of a DAG: named, made, and deleted whatever became of the tasks between.

What makes it is elsewhere: `kuberay` on Kubernetes, `local` on this machine. This module only wires the tasks up and
must not reach a cluster.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.sdk import BaseOperator, TaskGroup

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

LONGEST = 47
"""Characters of a name: KubeRay refuses a RayJob with more."""
_DIGITS = 8


class ClusterGroup(TaskGroup):
    """The tasks that have a cluster of their own; `address` is where it takes jobs, as a template.

    Not as an XComArg: whoever took that would directly follow a setup, and Airflow allows such a task no trigger rule
    but the usual one, which a promotion has not.
    """

    address: str


class NameClusterOperator(BaseOperator):
    """Names the cluster of a DAG run, and makes nothing.

    Airflow runs a teardown where one of its setups has succeeded. One that made a cluster and was then killed, timed
    out or marked as failed has not, and its cluster would stay; so this one stands before it, and counts.
    """

    def execute(self, context: Context) -> str:
        """The name, the same for every try and after a clear."""
        instance = context["ti"]
        index = -1 if instance.map_index is None else instance.map_index
        return cluster_name(instance.dag_id, instance.run_id, self.task_id, index)


def cluster_name(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    """The name that a cluster has in Kubernetes and elsewhere: letters of the DAG and a digest of what it is for.

    What this Airflow is called and its address are in the digest: two of them may share a namespace, with DAG runs of
    the same id.
    """
    airflow = (conf.get("tune_tasks", "deployment", fallback=""), conf.get("api", "base_url", fallback=""))
    digest = hashlib.sha256("\n".join((*airflow, dag_id, run_id, task_id, str(map_index))).encode()).hexdigest()
    plain = re.sub(r"[^a-z0-9]+", "-", f"tune-{dag_id}".lower())
    return f"{plain[: LONGEST - _DIGITS - 1].strip('-')}-{digest[:_DIGITS]}"


@contextmanager
def cluster_group(
    group_id: str, start: Callable[[XComArg], BaseOperator], stop: Callable[[XComArg], BaseOperator]
) -> Iterator[ClusterGroup]:
    """Puts what is declared in the block between a task that makes the cluster and one that deletes it.

    `start` and `stop` make these from the cluster's name. Every task of the block is upstream of the deletion, not the
    last ones alone: Airflow calls a task failed as soon as one that it needs has failed, while others still run.

    The deletion does not count for the state of the DAG run. With `on_failure_fail_dagrun` Airflow would look at
    nothing else, and a run whose tasks failed would be a success once the cluster is gone.
    """
    group = ClusterGroup(group_id)
    with group:
        name = NameClusterOperator(task_id="name")
        begin = start(name.output)
        group.address = f"{{{{ ti.xcom_pull(task_ids='{begin.task_id}')['address'] }}}}"
        yield group
        work = [task for task in group.iter_tasks() if task not in (name, begin)]
        end = stop(name.output)
        end.as_teardown(setups=[name, begin])  # which makes setups of them
        ids = {task.task_id for task in work}
        for task in work:
            if not task.upstream_task_ids & ids:
                begin.set_downstream(task)
            end.set_upstream(task)


def patient(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of a task that deletes: it tries more often than others, as what it leaves behind costs money."""
    often = {"retries": 5, "retry_delay": timedelta(seconds=30), "retry_exponential_backoff": True}
    return {**often, **(options or {})}
