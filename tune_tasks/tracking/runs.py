"""What a study and its trials look like as runs of MLflow: names, parameters, metrics by step, tags.

All of it follows from the study's state alone, so that runs that were deleted come back the same. This module must not
look up what MLflow holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from tune_tasks.study import StudyState, Trial
from tune_tasks.tracking.marks import ms

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

STUDY, TRIAL, MIRRORED, PARENT = "tune_tasks.study_id", "tune_tasks.trial", "tune_tasks.mirrored", "mlflow.parentRunId"
STATUS = {
    "queued": "SCHEDULED",
    "running": "RUNNING",
    "paused": "SCHEDULED",
    "completed": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
}
# MLflow sends 1000 metrics, 100 parameters and 100 tags at once, and no more than 1000 of them together.
_METRICS, _PARAMS = 800, 90


def write(
    client: MlflowClient,
    run: str,
    metrics: Sequence[Metric],
    params: Mapping[str, Any],
    tags: Mapping[str, str],
) -> None:
    """Writes in as few calls as MLflow allows; last the tags, which say that all of it was written.

    MLflow would split a long call itself, and send the tags first. Values that are too long it cuts.
    """
    from mlflow.entities import Param, RunTag

    written = [Param(_name(name), str(value)) for name, value in params.items()]
    notes = [RunTag(name, value) for name, value in tags.items()]
    while len(metrics) > _METRICS or len(written) > _PARAMS:
        client.log_batch(run, metrics=metrics[:_METRICS], params=written[:_PARAMS])
        metrics, written = metrics[_METRICS:], written[_PARAMS:]
    client.log_batch(run, metrics=metrics, params=written, tags=notes)


def set_status(client: MlflowClient, run: str, status: str, time: float) -> None:
    """Sets how a run stands, and, where it has ended, when."""
    if status in {"FINISHED", "FAILED", "KILLED"}:
        client.set_terminated(run, status, end_time=ms(time))
    else:
        client.update_run(run, status=status)


def study_metrics(state: StudyState) -> list[Metric]:
    """The best value, once the study is done: before, it is a tag, which the next one replaces."""
    from mlflow.entities import Metric

    best = state.best
    if best is None or best.value is None or not state.done:
        return []
    steps = sum(trial.budget for trial in state.trials)
    return [Metric(f"best_{_name(state.spec.metric)}", best.value, ms(state.now), steps)]


def trial_metrics(state: StudyState, trial: Trial, done: int) -> list[Metric]:
    """What a trial reported after step `done`, and its best value as a metric of its own wherever that got better.

    MLflow sorts runs by what they logged last, which need not be the best.
    """
    return list(_metrics(state, trial, done))


def _metrics(state: StudyState, trial: Trial, done: int) -> Iterator[Metric]:
    from mlflow.entities import Metric

    metric, best = state.spec.metric, math.inf
    for value in state.curve(trial.number)[:done]:
        best = min(best, state.sign * value) if not math.isnan(value) else best
    for report in trial.curves.reports(trial.number, done):
        for name, value in report.metrics.items():
            yield Metric(_name(name), value, ms(report.time), report.step)
        value = state.sign * report.metrics.get(metric, math.inf)
        if value < best:
            best = value
            yield Metric(f"best_{_name(metric)}", state.sign * best, ms(report.time), report.step)


def study_tags(state: StudyState, url: str) -> dict[str, str]:
    """What the study's run says of the study."""
    best = state.best
    models = [model for model in state.promotions if model.get("promoted")]
    return {
        "tune_tasks.study": url,
        "tune_tasks.metric": state.spec.metric,
        "tune_tasks.mode": state.spec.mode,
        "tune_tasks.sampler": state.spec.sampler.name,
        "tune_tasks.scheduler": state.spec.scheduler.name,
        "tune_tasks.trials": str(len(state.trials)),
        "tune_tasks.best_trial": str(best.number) if best else "",
        "tune_tasks.best_value": repr(best.value) if best else "",
        "tune_tasks.reason": state.reason,
        "tune_tasks.model": str(models[-1].get("uri") or "") if models else "",
        "tune_tasks.spec": orjson.dumps(state.spec.record()).decode(),
    }


def trial_tags(trial: Trial, url: str) -> dict[str, str]:
    """What a trial's run says of the trial: its state, why, and where its newest checkpoint lies."""
    newest = trial.checkpoint
    return {
        "tune_tasks.state": trial.state,
        "tune_tasks.why": trial.why,
        "tune_tasks.proposed": trial.reason,
        "tune_tasks.attempts": str(trial.attempts),
        "tune_tasks.error": trial.error or "",
        "tune_tasks.checkpoint": f"{url}/{newest[1].key}" if newest else "",
        "tune_tasks.checkpoint_step": str(newest[0]) if newest else "",
    }


def study_start(state: StudyState) -> float:
    """When the first report was made."""
    times = (trial.curves.time(trial.number, 1) for trial in state.trials if trial.budget)
    return min(times, default=state.now)


def trial_time(state: StudyState, trial: Trial, step: int) -> float:
    """When a trial made a report; one that made none has no time of its own."""
    return trial.curves.time(trial.number, step) if trial.budget else state.now


def _name(name: str) -> str:
    """The name as MLflow allows it: letters, digits, and a few signs, at most 250 of them."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:245].strip("./ ") or "_"
