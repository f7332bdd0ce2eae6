"""A study in MLflow: one run for the study, and below it one for each trial, written in as few calls as MLflow allows.

What was written is noted in a tag of each run, last of all, so whatever is missing is found and written again. This
module must not read anything else back, and must not copy an artifact: `runs` names them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.registry.client import Connection
from tune_tasks.registry.place import default_uri
from tune_tasks.study import OVER, StudyState, Trial
from tune_tasks.tracking import runs
from tune_tasks.tracking.marks import mark, ms, newer, read_mark, written

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_LANES = 8
"""Trials that are written at once where a server takes them; a database file takes one."""


class MLflowTracker(BaseModel):
    """A run for the study in MLflow, and below it one for each trial that has begun."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str | None = Field(
        default=None, description="MLflow URI, without credentials; by default the registry of the promotion"
    )
    _mirror: _Mirror | None = PrivateAttr(default=None)

    def place(self, state: StudyState, url: str) -> str | None:
        """The MLflow that the spec names, else the registry of the promotion; None where there is neither."""
        uri = self._uri(state, url)
        return Connection(uri).shown if uri else None

    def update(self, state: StudyState, url: str) -> Iterator[None]:
        """See `Tracker.update`: the study's run first, then each trial's."""
        uri, known = self._uri(state, url), self._mirror
        if uri is None:
            return
        self._mirror = None  # what is known of MLflow is trusted again when all of it was brought up to date
        try:
            mirror = known or _Mirror(uri, state, url)
            yield from mirror.update(state)
        except (ConfigError, Unavailable):
            if known is None:
                raise
            mirror = _Mirror(uri, state, url)  # runs that were there may have been deleted since
            yield from mirror.update(state)
        self._mirror = mirror

    def _uri(self, state: StudyState, url: str) -> str | None:
        if self.uri is not None:
            return self.uri
        try:
            uri = default_uri(state.spec.promotion.registry, url.rpartition("/")[0])
        except ConfigError:  # a promotion will say that it has no registry; there may never be one
            return None
        return uri if find_spec("mlflow") else None


@dataclass(frozen=True, slots=True)
class _Known:
    """A run that is in MLflow, and what it said when it was last seen or written."""

    id: str
    start: int
    status: str = "RUNNING"
    mirrored: str | None = None
    parent: str | None = None


class _Mirror:
    """The runs of one study that are in MLflow, by trial; None is the study's own."""

    def __init__(self, uri: str, state: StudyState, url: str) -> None:
        self._connection = Connection(uri, section="tracking.mlflow.uri", patient=False)
        self._study, self._url = state.study, url
        self._experiment = self._connection.experiment(state.spec.name, url)
        self._runs: dict[int | None, _Known] = {}
        self._made: list[int] = []
        self._settle(0)

    def update(self, state: StudyState) -> Iterator[None]:
        """Brings all runs up to date; again where another process made some of them at the same time."""
        untidy = True
        while untidy:
            with self._connection.calls() as client:
                parent = self._bring_study(client, state)
            yield
            yield from self._bring_trials(state, parent)
            made, self._made = self._made, []
            untidy = bool(made) and self._settle(min(made))

    def _settle(self, since: int) -> bool:
        """Looks up the runs that began at a time or later; of two for one trial only the first stays.

        Returns whether there were two. Whoever made its own later than others looked finds both, so no two stay.
        """
        doubled = False
        with self._connection.calls() as client:
            for key, (first, *others) in self._found(client, since).items():
                self._runs[key] = first
                for other in others:
                    client.delete_run(other.id)
                    doubled = True
        return doubled

    def _found(self, client: MlflowClient, since: int) -> dict[int | None, list[_Known]]:
        wanted, token = f"tags.`{runs.STUDY}` = '{self._study}' and attributes.start_time >= {since}", None
        found: dict[int | None, list[_Known]] = {}
        while True:
            page = client.search_runs([self._experiment], wanted, order_by=["start_time ASC"], page_token=token)
            for run in page:
                number = run.data.tags.get(runs.TRIAL)
                found.setdefault(None if number is None else int(number), []).append(_known(run))
            token = page.token
            if not token:
                return {key: sorted(some, key=lambda run: (run.start, run.id)) for key, some in found.items()}

    def _bring_study(self, client: MlflowClient, state: StudyState) -> str:
        """Brings the study's own run up to date and returns its id."""
        steps, over = sum(trial.budget for trial in state.trials), state.count(*OVER)
        note = f"{steps} {len(state.trials)} {over} {state.done} {len(state.promotions)}"
        known = self._runs.get(None)
        if known is not None and known.mirrored == note:
            return known.id
        known = known or self._create(client, None, state.spec.name, runs.study_start(state))
        known = _stand(client, known, "FINISHED" if state.done else "RUNNING", state.now)
        tags = {**runs.study_tags(state, self._url), runs.MIRRORED: note}
        runs.write(client, known.id, runs.study_metrics(state), {}, tags)
        self._runs[None] = replace(known, mirrored=note)
        return known.id

    def _bring_trials(self, state: StudyState, parent: str) -> Iterator[None]:
        """The best first: a promotion waits for their runs, and not for the others."""
        lanes = _LANES if self._connection.remote else 1
        begun = [trial for trial in state.trials if trial.attempts or trial.state in OVER]
        begun.sort(key=lambda trial: math.inf if trial.value is None else state.sign * trial.value)
        changed = (trial for trial in begun if self._has_changed(trial, parent))
        with ThreadPoolExecutor(lanes) as pool:
            while some := list(islice(changed, lanes)):
                with self._connection.calls() as client:
                    for done in [pool.submit(self._bring, client, state, trial, parent) for trial in some]:
                        done.result()
                yield

    def _has_changed(self, trial: Trial, parent: str) -> bool:
        known = self._runs.get(trial.number)
        return known is None or known.parent != parent or known.mirrored != str(mark(trial))

    def _bring(self, client: MlflowClient, state: StudyState, trial: Trial, parent: str) -> None:
        """Brings a trial's run up to date; one that tells of what does not hold any more is written afresh."""
        known, now = self._runs.get(trial.number), mark(trial)
        before = read_mark(known.mirrored) if known else None
        if known and before and newer(before, trial) and known.parent == parent:
            return
        done = written(before, trial, now) if before else 0
        unclear = before is None and trial.attempts > 1  # it may hold reports that were made again since
        if known and (done is None or unclear):
            client.delete_run(known.id)
            known = before = None
        known = known or self._create(client, trial.number, f"trial {trial.number}", runs.trial_time(state, trial, 1))
        known = _stand(client, known, runs.STATUS[trial.state], runs.trial_time(state, trial, trial.budget))
        metrics = runs.trial_metrics(state, trial, done or 0)
        tags = {**runs.trial_tags(trial, self._url), runs.PARENT: parent, runs.MIRRORED: str(now)}
        runs.write(client, known.id, metrics, {} if before else trial.params, tags)
        self._runs[trial.number] = replace(known, mirrored=str(now), parent=parent)

    def _create(self, client: MlflowClient, trial: int | None, name: str, time: float) -> _Known:
        tags = {runs.STUDY: self._study} | ({} if trial is None else {runs.TRIAL: str(trial)})
        run = client.create_run(self._experiment, start_time=ms(time), tags=tags, run_name=name)
        self._runs[trial] = _known(run)
        self._made.append(ms(time))
        return self._runs[trial]


def _stand(client: MlflowClient, run: _Known, status: str, time: float) -> _Known:
    if run.status != status or status in {"FINISHED", "FAILED", "KILLED"}:
        runs.set_status(client, run.id, status, time)
    return replace(run, status=status)


def _known(run: Run) -> _Known:
    tags = run.data.tags
    return _Known(run.info.run_id, run.info.start_time, run.info.status, tags.get(runs.MIRRORED), tags.get(runs.PARENT))
