"""A launch step whose batch runs in the study's Ray job: asks for it in the log, sees that the job runs, and waits.

The job's name is derived from the study and the number of the attempt, which is in the log: whoever runs the step
again finds the job that is there and attaches to it. This module must not run a trial, and must not end a job because
its own process ends.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from typing import Any

from tune_tasks.errors import ConfigError, CorruptLog, Fenced, StudyNotFound, TuneError, Unavailable
from tune_tasks.events import Requested
from tune_tasks.execution.environment import runtime_env
from tune_tasks.execution.jobs import ALIVE, Job, Jobs
from tune_tasks.spec import resolve
from tune_tasks.studies import Study, append
from tune_tasks.study import StudyState
from tune_tasks.watching import Wait

_SHORTEST, _LONGEST = 0.1, 2.0
"""Seconds between two looks into the log."""
_JOB_SECONDS = 5.0
"""Between two looks at the job."""
_PATIENCE = 60.0
"""Seconds for which the cluster may be out of reach before the step gives up: its orchestrator tries it again."""
_ERRORS = {error.exit_code: error for error in (TuneError, ConfigError, StudyNotFound, Fenced, CorruptLog)}


def job_name(state: StudyState, attempt: int) -> str:
    """The submission id of a study's job."""
    return f"tune-tasks-{state.study[:16]}-{attempt}"


def attend(
    study: Study, batch: str, *, jobs: Jobs | None = None, on_change: Callable[[StudyState], None] = lambda _: None
) -> None:
    """Returns when the launch step of the batch has its result, which the study's job commits.

    `jobs` of the cluster, by default the one in the spec. Raises what the job's driver raised, and `Unavailable` where
    the cluster is out of reach, or loses one job after another.
    """
    attendant = Attendant(study, batch, jobs=jobs)
    pause, due = _SHORTEST, 0.0
    while not attendant.is_over:
        if time.monotonic() >= due:
            attendant.ensure()
            due = time.monotonic() + _JOB_SECONDS
        on_change(study.state)
        time.sleep(pause)
        before = study.log.head
        study.refresh()
        pause = _SHORTEST if study.log.head != before else min(2 * pause, _LONGEST)


def begin(study: Study, batch: str, *, by: str, jobs: Jobs | None = None, last: Wait | None = None) -> Wait | None:
    """Has the study's job run a batch and returns at once, for who waits with a `Watch`; None where it has run.

    `by` names who waits, and `last` is the wait that this one goes on from. Raises as `attend` does: what became of a
    job is raised when the wait for it is gone on with.
    """
    study.refresh()
    attendant = Attendant(study, batch, jobs=jobs, by=by, last=last)
    if not attendant.is_over:
        attendant.ensure(patience=0.0)
    if attendant.is_over:
        return None
    return Wait(study.url, batch, by, attendant.job, attendant.position, attendant.losses)


def stop(study: Study, *, jobs: Jobs | None = None) -> bool:
    """Stops the study's job; false where none runs. What it has not committed is run again by the next launch step."""
    state = study.refresh()
    return state.job > 0 and (jobs or Jobs(study.spec.execution.address)).stop(job_name(state, state.job))


class Attendant:
    """Sees that the study's job runs, for the launch step of one batch."""

    def __init__(
        self,
        study: Study,
        batch: str,
        *,
        jobs: Jobs | None = None,
        by: str | None = None,
        last: Wait | None = None,
    ) -> None:
        """`jobs` of the cluster, by default the one in the spec; `by`: who waits, recorded when the job is asked first.

        `last` is the wait that this one goes on from. Raises `ConfigError` for an objective that only this process
        knows.
        """
        _check_shipped(study)
        self._study, self._batch, self._by = study, batch, by
        self._jobs = jobs or Jobs(study.spec.execution.address)
        self._seen = last.job if last else None
        self._asked = by is None or last is not None
        self.losses = last.losses if last else 0
        self.position = last.position if last else 0
        """Where the log ended when the batch was asked for."""
        self._answered: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the step has its result."""
        return f"{self._batch}/launch" in self._study.state.steps

    @property
    def job(self) -> str:
        """The submission id of the job that runs the batch."""
        return job_name(self._study.state, self._study.state.job)

    def ensure(self, patience: float = _PATIENCE) -> None:
        """Asks for the batch, and submits the job unless it is there; one that is gone is followed by the next.

        Raises `Unavailable` where the cluster has been out of reach for more than the seconds of `patience`. Where it
        does not answer at the first time, it raises at once, and nothing is asked for.
        """
        if self._answered is None:
            self._jobs.version()
            self._answered = time.monotonic()
        state = self._study.state
        if self._batch not in state.requests or not self._asked:
            self._request(max(state.job, 1))
        try:
            self._look(self.job)
            self._answered = time.monotonic()
        except Unavailable:
            if time.monotonic() - self._answered > patience:
                raise

    def _look(self, name: str) -> None:
        job = self._jobs.look(name)
        if job.condition in ALIVE:
            self._seen = name
        elif job.condition == "absent" and name not in {self._study.state.owner, self._seen}:
            self._submit(name)
        elif self._study.refresh().job == self._number(name) and not self.is_over:
            self._replace(name, job)

    def _submit(self, name: str) -> None:
        study = self._study
        command = shlex.join(["python", "-m", "tune_tasks.job", study.url, "--job", name])
        self._jobs.submit(name, command, runtime_env(study.spec, study.folder))
        self._seen = name

    def _replace(self, name: str, job: Job) -> None:
        """Asks for the next attempt at the job; where this one ended before our eyes by an error, that is raised."""
        if self._seen == name:
            self.losses += 1
            said = self._jobs.last_words(name) or job.message
            if job.condition == "failed" and job.exit_code in _ERRORS:
                raise _ERRORS[job.exit_code](_last_error(said, name))
            if self.losses > self._study.spec.retry.infrastructure:
                raise Unavailable(f"{self.losses} jobs of the study were lost one after the other; the last:\n{said}")
        self._request(self._number(name) + 1)
        self._look(self.job)

    def _request(self, job: int) -> None:
        def make(state: StudyState) -> Requested | None:
            if self._asked and state.requests.get(self._batch, 0) >= job:
                return None  # someone else was first
            return Requested(batch=self._batch, job=max(job, state.job), time=self._study.now(), by=self._by)

        if append(self._study, make) is not None:
            self.position = self._study.log.head
        self._asked = True

    @staticmethod
    def _number(name: str) -> int:
        return int(name.rpartition("-")[2])


def _last_error(said: str, name: str) -> str:
    """The message of the error that ended a job, which is at the end of what it printed."""
    names = tuple(f"{error.__name__}: " for error in _ERRORS.values())
    lines = said.splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith(names)]
    if not starts:
        return f"job {name} failed: {said}"
    return "\n".join(lines[starts[-1] :]).partition(": ")[2]


def _check_shipped(study: Study) -> None:
    """Refuses an objective, and functions for its inputs, that only this process knows: the job imports by name."""
    _check_named("objective", study.objective(), study.spec.objective or "", study.folder)
    for name, loader in study.loaders().items():
        _check_named(f"inputs.{name}", loader, study.spec.inputs[name], study.folder)


def _check_named(path: str, target: Any, name: str, folder: str | None) -> None:
    if not callable(target):
        return
    try:
        found = resolve(name, path, folder)
    except ConfigError:
        found = None
    if found is not target or name.startswith("__main__:"):
        raise ConfigError(
            f"{path}: {target!r} is known only to this process, and execution.runner: job runs it in another; "
            "put it into a module and name it by an import string"
        )
