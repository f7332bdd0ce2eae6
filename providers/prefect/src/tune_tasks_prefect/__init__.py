"""The four tasks of tune_tasks as Prefect tasks, and the flow `tune` over them.

This module must not decide anything about tuning: it hands each call to the engine's step of the same name. Prefect's
server and workers load it as a collection when they start, so it must stay light.
"""

from __future__ import annotations

from tune_tasks_prefect.flows import tune
from tune_tasks_prefect.retries import worth_retrying
from tune_tasks_prefect.tasks import (
    Source,
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
    "Source",
    "deploy",
    "evaluate_and_prune",
    "extend",
    "launch_trials",
    "promote_best",
    "sample",
    "train_final",
    "tune",
    "undeploy",
    "worth_retrying",
]
