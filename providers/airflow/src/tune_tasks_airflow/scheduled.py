"""The first task of a DAG that retrains on a schedule: it opens the study of the run, or has the run skipped.

Which study that is, and whether there shall be one, says the engine. This module must not decide anything about tuning,
and loads the engine when a task runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_tasks_airflow.operators import StepOperator, read_overrides

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tune_tasks.spec import StudySpec
    from tune_tasks.studies import Study


class RetrainOperator(StepOperator):
    """Opens the study of a DAG run, `<name>-<run>`, which begins with the best configurations of the run before.

    `study` is a spec, as a path or a mapping, which `overrides` change. `run` names the run of the schedule, by default
    after the DAG run's logical date (`name_of`): every try, and a clear, goes on with the same study. `data` says what
    is trained on, by default the spec's: a version, or a path or URL of files, of which the digest is recorded too. A
    template makes it the DAG run's data interval: `"s3://bucket/days/{{ data_interval_start | ds }}"`.

    Returns `study`, the URL, with `series`, `run`, `reason`, `previous` (the study that it goes on from) and `skipped`;
    each is an XCom of its own too, so that `retrained.output["study"]` is the `study` of the tasks that follow. Where
    the engine wants no run, because the data is that of the last one or a promotion was refused of late, the task is
    skipped, with the reason in its log and its result, and so is what follows.
    """

    step = "retrain"
    options = ("run", "data")
    template_fields = (*StepOperator.template_fields, *options)

    def __init__(
        self,
        *,
        study: str | Path | Mapping[str, Any],
        run: str | None = None,
        data: str | None = None,
        multiple_outputs: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(study=study, multiple_outputs=multiple_outputs, **kwargs)
        self.run = run
        self.data = data
        self._by_date = ""
        self._told: dict[str, Any] = {}

    def execute(self, context: Context) -> dict[str, Any]:
        """Opens the study of the run, creating it where it is not there; skips where there shall be none."""
        from airflow.providers.common.compat.sdk import AirflowSkipException  # at home elsewhere in 3.1

        self._by_date = name_of(context["dag_run"])
        try:
            return super().execute(context)
        except AirflowSkipException:
            instance = context.get("ti")
            if instance is not None:  # by itself, a task that is skipped returns nothing
                instance.xcom_push("return_value", self._told)
            raise

    def _open(self, new: str) -> Study:
        from airflow.providers.common.compat.sdk import AirflowSkipException

        from tune_tasks.errors import ConfigError
        from tune_tasks.next_week import data_named
        from tune_tasks.retraining import retrain

        if new:
            raise ConfigError("new_study is not allowed here: each run of a schedule has its own; `run` names another")
        data = data_named(self.data or None)
        run, pipeline = self.run or self._by_date, self.pipeline
        outcome = retrain(self._spec(), run=run, data=data, amend=self.amend, pipeline=pipeline)
        self._told = {
            "study": outcome.study.url if outcome.study is not None else None,
            "series": outcome.series,
            "run": outcome.run,
            "reason": outcome.reason,
            "previous": outcome.previous,
            "skipped": outcome.study is None,
        }
        if outcome.study is None:
            raise AirflowSkipException(f"{outcome.series}: {outcome.reason}")
        return outcome.study

    def _spec(self) -> StudySpec:
        from tune_tasks.errors import ConfigError
        from tune_tasks.spec import load_spec
        from tune_tasks.studies import is_spec_file

        if not isinstance(self.study, Mapping) and not is_spec_file(self.study):
            raise ConfigError(f"study: {self.study!r} is not allowed; a run of a schedule is made from a spec")
        return load_spec(self.study, read_overrides(self.overrides))

    def _given(self, study: Study, context: Context) -> dict[str, Any]:  # noqa: ARG002  # it was opened with them
        return {}

    def _perform(self, study: Study, context: Context, **given: Any) -> dict[str, Any]:  # noqa: ARG002  # as its parent
        return self._told


def name_of(dag_run: Any) -> str:
    """Names the run of a schedule after the logical date of a DAG run: its day, and the time where it is not midnight.

    A DAG run without one, of an event say, is named after the moment from which it may run, and a digest of its id.
    """
    date = dag_run.logical_date
    moment = (date or dag_run.run_after).astimezone(UTC)
    day, time = f"{moment:%Y-%m-%d}", f"T{moment:%H%M%S}"
    fraction = f".{moment:%f}" if moment.microsecond else ""
    if date is None:
        return f"{day}{time}-{hashlib.sha256(dag_run.run_id.encode()).hexdigest()[:8]}"
    return day if time + fraction == "T000000" else f"{day}{time}{fraction}"
