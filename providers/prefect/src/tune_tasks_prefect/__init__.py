"""The four tasks of tune_tasks as Prefect tasks, and the flow `tune` over them.

This module must not decide anything about tuning: it hands each call to the engine's step of the same name. Prefect's
server and workers load it as a collection when they start, so it must stay light.
"""

from __future__ import annotations

from tune_tasks_prefect.blocks import RayCluster, StudyStore
from tune_tasks_prefect.flows import atune, stop_cancelled_run, tune
from tune_tasks_prefect.hooks import stop_jobs, tell_jobs
from tune_tasks_prefect.opening import Source
from tune_tasks_prefect.retries import worth_retrying
from tune_tasks_prefect.tasks import (
    adeploy,
    aevaluate_and_prune,
    aextend,
    alaunch_trials,
    apromote_best,
    asample,
    atrain_final,
    aundeploy,
    deploy,
    evaluate_and_prune,
    extend,
    launch_trials,
    promote_best,
    sample,
    train_final,
    undeploy,
)

__all__ = [
    "RayCluster",
    "Source",
    "StudyStore",
    "adeploy",
    "aevaluate_and_prune",
    "aextend",
    "alaunch_trials",
    "apromote_best",
    "asample",
    "atrain_final",
    "atune",
    "aundeploy",
    "deploy",
    "evaluate_and_prune",
    "extend",
    "launch_trials",
    "promote_best",
    "sample",
    "stop_cancelled_run",
    "stop_jobs",
    "tell_jobs",
    "train_final",
    "tune",
    "undeploy",
    "worth_retrying",
]
