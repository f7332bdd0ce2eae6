"""The four tasks of tune_tasks as Prefect tasks, and the flow `tune` over them.

This module must not decide anything about tuning: it hands each call to the engine's step of the same name. Prefect's
server and workers load it as a collection when they start, so it must stay light.
"""

from __future__ import annotations

from tune_tasks_prefect.flows import tune
from tune_tasks_prefect.retries import worth_retrying
from tune_tasks_prefect.tasks import Source, evaluate_and_prune, launch_trials, promote_best, sample

__all__ = ["Source", "evaluate_and_prune", "launch_trials", "promote_best", "sample", "tune", "worth_retrying"]
