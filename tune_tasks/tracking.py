"""A projection of a study's log into MLflow: one run for the study, and below it one for each trial.

MLflow is written to and never believed: what was mirrored is noted in tags, and whatever is missing there is written
again from the log. So nothing is lost with a tracking server. This module must not be on the path of a trial or a
decision, and must not change the study.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from tune_tasks.curves import Report
from tune_tasks.registry.client import Connection
from tune_tasks.study import OVER, StudyState, Trial

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

STUDY, TRIAL, MIRRORED = "tune_tasks.study_id", "tune_tasks.trial", "tune_tasks.mirrored"
_STATUS = {
    "queued": "SCHEDULED",
    "running": "RUNNING",
    "paused": "SCHEDULED",
    "completed": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
}
# MLflow sends 1000 metrics, 100 parameters and 100 tags at once, and no more than 1000 of them together.
_METRICS, _PARAMS = 800, 90


def mirror(state: StudyState, study_url: str, uri: str) -> None:
    """Brings MLflow up to date with the study: again and again, each time only what is new, and nothing twice.

    Raises `ConfigError` and `Unavailable` as `Connection` does; the next call catches up.
    """
    connection = Connection(uri)
    experiment = connection.experiment(state.spec.name, study_url)
    with connection.calls() as client:
        mirrored = _Mirror(client, experiment, state)
        parent = mirrored.study(study_url)
        for trial in state.trials:
            if trial.attempts or trial.state in OVER:
                mirrored.trial(trial, parent)


class _Mirror:
    """The runs of one study that are in MLflow, by trial; None is the study's own."""

    def __init__(self, client: MlflowClient, experiment: str, state: StudyState) -> None:
        self._client, self._experiment, self._state = client, experiment, state
        self._runs: dict[int | None, Run] = {}
        for run in self._search():
            number = run.data.tags.get(TRIAL)
            key = None if number is None else int(number)
            if key in self._runs:  # two processes mirrored at once
                client.delete_run(run.info.run_id)
            else:
                self._runs[key] = run

    def study(self, url: str) -> str:
        """Brings the study's own run up to date and returns its id."""
        state = self._state
        steps = sum(trial.budget for trial in state.trials)
        mark = f"{steps} {state.count(*OVER)} {state.done} {len(state.promotions)}"
        run = self._runs.get(None)
        if run is not None and run.data.tags.get(MIRRORED) == mark:
            return str(run.info.run_id)
        found = str(run.info.run_id) if run else self._create(state.spec.name, {}, _first_time(state))
        metrics = _best(state.spec.metric, state.best, steps, state.now)
        self._status(found, "FINISHED" if state.done else "RUNNING", state.now)
        self._write(found, metrics, {}, {**_study_tags(state, url), MIRRORED: mark})
        return found

    def trial(self, trial: Trial, parent: str) -> None:
        """Brings a trial's run up to date; one that tells of reports which were dropped since is written afresh."""
        mark = f"{trial.budget} {_last_time(trial)} {trial.attempts} {trial.state}"
        run = self._runs.get(trial.number)
        known = run.data.tags.get(MIRRORED) if run else None
        if run and known == mark and run.data.tags.get("mlflow.parentRunId") == parent:
            return
        reports = trial.reports
        done = _mirrored(known, reports)
        if run and done is None:
            self._client.delete_run(run.info.run_id)
            run = None
        tags = {**_trial_tags(trial), "mlflow.parentRunId": parent}
        start = reports[0].time if reports else self._state.now
        found = run.info.run_id if run else self._create(f"trial {trial.number}", {TRIAL: str(trial.number)}, start)
        metrics = [metric for report in reports[done or 0 :] for metric in _metrics(report)]
        metrics += _best(self._state.spec.metric, trial, trial.budget, reports[-1].time if reports else 0.0)
        self._status(found, _STATUS[trial.state], reports[-1].time if reports else self._state.now)
        self._write(found, metrics, {} if run else trial.params, {**tags, MIRRORED: mark})

    def _search(self) -> Iterator[Run]:
        wanted, token = f"tags.`{STUDY}` = '{self._state.study}'", None
        while True:
            found = self._client.search_runs([self._experiment], wanted, order_by=["start_time ASC"], page_token=token)
            yield from found
            token = found.token
            if not token:
                return

    def _create(self, name: str, tags: dict[str, str], time: float) -> str:
        tags = {**tags, STUDY: self._state.study}
        run = self._client.create_run(self._experiment, start_time=_ms(time), tags=tags, run_name=name)
        return str(run.info.run_id)

    def _write(self, run: str, metrics: Sequence[Metric], params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Writes in as few calls as MLflow allows; last the tags, which say that all of it was written.

        MLflow would split a long call itself, and send the tags first. Values that are too long it cuts.
        """
        from mlflow.entities import Param, RunTag

        written = [Param(_name(name), str(value)) for name, value in params.items()]
        notes = [RunTag(name, value) for name, value in tags.items()]
        while len(metrics) > _METRICS or len(written) > _PARAMS:
            self._client.log_batch(run, metrics=metrics[:_METRICS], params=written[:_PARAMS])
            metrics, written = metrics[_METRICS:], written[_PARAMS:]
        self._client.log_batch(run, metrics=metrics, params=written, tags=notes)

    def _status(self, run: str, status: str, time: float) -> None:
        if status in {"FINISHED", "FAILED", "KILLED"}:
            self._client.set_terminated(run, status, end_time=_ms(time))
        else:
            self._client.update_run(run, status=status)


def _mirrored(mark: str | None, reports: Sequence[Report]) -> int | None:
    """How many reports MLflow has; None where it has some that the log no longer counts."""
    if mark is None:
        return None
    step, time = (int(part) for part in mark.split()[:2])
    if step == 0:
        return 0
    return step if step <= len(reports) and _ms(reports[step - 1].time) == time else None


def _metrics(report: Report) -> Iterator[Metric]:
    from mlflow.entities import Metric

    for name, value in report.metrics.items():
        yield Metric(_name(name), value, _ms(report.time), report.step)


def _best(metric: str, trial: Trial | None, step: int, time: float) -> list[Metric]:
    """The best value so far as a metric of its own, since MLflow sorts runs by what they logged last."""
    from mlflow.entities import Metric

    if trial is None or trial.value is None:
        return []
    return [Metric(f"best_{_name(metric)}", trial.value, _ms(time), step)]


def _study_tags(state: StudyState, url: str) -> dict[str, str]:
    best = state.best
    return {
        "tune_tasks.study": url,
        "tune_tasks.metric": state.spec.metric,
        "tune_tasks.mode": state.spec.mode,
        "tune_tasks.sampler": state.spec.sampler.name,
        "tune_tasks.scheduler": state.spec.scheduler.name,
        "tune_tasks.trials": str(len(state.trials)),
        "tune_tasks.best_trial": str(best.number) if best else "",
        "tune_tasks.reason": state.reason,
        "tune_tasks.spec": orjson.dumps(state.spec.record()).decode(),
    }


def _trial_tags(trial: Trial) -> dict[str, str]:
    return {
        "tune_tasks.state": trial.state,
        "tune_tasks.why": trial.why,
        "tune_tasks.attempts": str(trial.attempts),
        "tune_tasks.error": trial.error or "",
    }


def _first_time(state: StudyState) -> float:
    return min((trial.reports[0].time for trial in state.trials if trial.budget), default=state.now)


def _last_time(trial: Trial) -> int:
    return _ms(trial.reports[-1].time) if trial.budget else 0


def _name(name: str) -> str:
    """The name as MLflow allows it: letters, digits, and a few signs, at most 250 of them."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:245].strip("./ ") or "_"


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
