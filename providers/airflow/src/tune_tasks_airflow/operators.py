"""The four tasks of tune_tasks as operators: each hands its fields to the engine's step of the same name.

Airflow parses this module again and again, so it must not load Ray, MLflow, Optuna or the engine before a task runs.
It must not decide anything about tuning.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.configuration import conf
from airflow.sdk import Asset, AssetAlias, BaseOperator

from tune_tasks_airflow.links import MLflowLink, StudyLink, show_study
from tune_tasks_airflow.stores import opened

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import BaseOperatorLink, Context, XComArg

    from tune_tasks.studies import Study


class StepOperator(BaseOperator):
    """One step of the engine as a task; it runs any number of times with one result.

    `study` is the path of a spec (YAML or JSON), a spec as a mapping, or the URL of an existing study. `overrides`
    maps dotted paths of a spec to other values (`{"budget.trials": 8}`), or is that as JSON, so that
    `"{{ params | tojson }}"` turns the parameters of a DAG into overrides. `amend` accepts overrides of the budget,
    resources, retry, execution and promotion that an existing study was not created with. `store_conn_id` names the
    connection whose credentials open the store, in place of what the worker's environment has. A study belongs to the
    first DAG that carries it on, and that of another one fails: `pipeline` is the name it goes by, by default the DAG's
    (`pipeline_name`); name the other one's to share a study, and the old one after a DAG was renamed. `new_study`: true
    for a study of the DAG run's own in place of the spec's, or a text that names one, so that a run which is cleared
    begins anew with another text; false, or empty, as a template may leave it, goes on with the spec's.

    Returns the step's result as small JSON: what the engine lists, such as the trials of a batch, is only counted here
    and can be read at `study`, the URL. An error that no retry mends fails the task at once; `Unavailable`, and what
    nobody foresaw, is left to the task's retries.
    """

    step: ClassVar[str]
    options: ClassVar[tuple[str, ...]]
    template_fields: Sequence[str] = ("study", "overrides", "store_conn_id", "pipeline", "new_study")
    template_fields_renderers: ClassVar[dict[str, str]] = {"study": "json", "overrides": "json"}
    operator_extra_links: Collection[BaseOperatorLink] = (StudyLink(), MLflowLink())

    def __init__(
        self,
        *,
        study: str | Path | Mapping[str, Any],
        overrides: str | Mapping[str, Any] | None = None,
        amend: bool = False,
        store_conn_id: str | None = None,
        pipeline: str | None = None,
        new_study: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.new_study = new_study
        self.overrides = overrides
        self.store_conn_id = store_conn_id
        self.pipeline = pipeline
        self.amend = amend
        self._works = False
        self.handle: Study | None = None
        self._result: dict[str, Any] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Opens the study, creating it where there is none, and runs the step."""
        return self._run(context)

    def _run(self, context: Context, **more: Any) -> dict[str, Any]:
        self._works = True
        try:
            with failing_at_once(), opened(self.store_conn_id):
                self.pipeline = self.pipeline or pipeline_name(context["dag"].dag_id)
                self.handle = study = self._open(_new(self.new_study, context))
                show_study(context, study)
                self._result = result = self._perform(study, context, **self._given(study, context), **more)
        finally:
            self._works = False
        self.log.info("%s: %s", self.step, json.dumps(result))
        return {name: len(value) if isinstance(value, list) else value for name, value in result.items()}

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:  # noqa: ARG002  # as OpenLineage calls it
        """What the task read and made, also where it failed after its study was open; OpenLineage's listener asks."""
        from tune_tasks_airflow.lineage import lineage

        return None if self.handle is None else lineage(self.step, self.handle, self._result)

    def on_kill(self) -> None:
        """Interrupts the step, as Ctrl-C would: it records what it knows, and a retry goes on from there.

        Airflow calls this from a signal handler in the task's main thread, and lets the task run on if it returns.
        """
        if self._works:
            raise KeyboardInterrupt

    def _open(self, new: str) -> Study:
        """The study; `new` comes behind the name of the spec's, where another one is asked for."""
        from tune_tasks.errors import ConfigError
        from tune_tasks.spec import load_spec
        from tune_tasks.steps import open_for
        from tune_tasks.studies import is_spec_file

        overrides = read_overrides(self.overrides)
        if isinstance(self.study, Mapping) or is_spec_file(self.study):
            spec = load_spec(self.study, overrides)
            if new:
                spec = load_spec(self.study, {**overrides, "name": f"{spec.name}-{new}"})
            return open_for(self.step, spec, pipeline=self.pipeline, amend=self.amend)
        if new:
            raise ConfigError(f"new_study: {self.new_study!r} is not allowed with a URL; a study is made from a spec")
        if overrides:
            raise ConfigError(f"overrides: {overrides} are not allowed with a URL; they change a spec")
        return open_for(self.step, str(self.study), pipeline=self.pipeline)

    def _given(self, study: Study, context: Context) -> dict[str, Any]:
        """The options of the step, each as the engine takes it."""
        given = {name: getattr(self, name) for name in self.options}
        for name, value in given.items():
            match name:
                case "run":
                    given[name] = value or run_name(context["dag"].dag_id, context["run_id"])
                case "batch":
                    given[name] = _batch(value, study.url)
                case _:
                    given[name] = _whole(name, value)
        return given

    def _perform(self, study: Study, context: Context, **given: Any) -> dict[str, Any]:  # noqa: ARG002  # for others
        from tune_tasks.steps import perform

        return perform(self.step, study, **given)


class SampleOperator(StepOperator):
    """Proposes the next batch of trials; give its `output` to the two operators that follow.

    `run` names the pipeline run, by default after the DAG run (`run_name`). `round` counts its batches from 0; without
    it, a task that is cleared after its verdict proposes a further batch. `count` is the size of the batch.
    """

    step = "sample"
    options = ("run", "round", "count")
    template_fields = (*StepOperator.template_fields, *options)

    def __init__(
        self,
        *,
        run: str | None = None,
        round: int | str | None = None,  # noqa: A002  # the engine's word
        count: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run = run
        self.round = round
        self.count = count


class EvaluateAndPruneOperator(StepOperator):
    """Decides which trials of the study advance and which stop, and whether the study is done."""

    step = "evaluate_and_prune"
    options = ("batch",)
    template_fields = (*StepOperator.template_fields, *options)

    def __init__(self, *, batch: str | Mapping[str, Any] | XComArg, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch = batch


ASSET_EXTRA = ("name", "alias", "version", "uri", "path", "metric", "value", "study", "trial")
"""What the event of a promotion says of the model, as its manifest has it."""


class PromoteBestOperator(StepOperator):
    """Publishes the model of the best trial so far, if it beats the champion; warns where the study is not done.

    `run` names the pipeline run, by default after the DAG run (`run_name`).

    An `AssetAlias` among the `outlets` gets an event where a model was promoted, and none where the champion stays: of
    the asset `models:/<name>@<alias>`, with what `ASSET_EXTRA` names. A task that is cleared tells it again. A plain
    `Asset` gets the same extra, but by a rule of Airflow it has an event at every success of the task, without extra
    where the champion stays; so schedule on an alias.
    """

    step = "promote_best"
    options = ("run",)
    template_fields = (*StepOperator.template_fields, *options)

    def __init__(self, *, run: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run = run

    def _perform(self, study: Study, context: Context, **given: Any) -> dict[str, Any]:
        if not study.state.done:
            trials, wanted = len(study.trials), study.spec.budget.trials
            self.log.warning("%s is not done, with %d of %d trials sampled", study.url, trials, wanted)
        model = super()._perform(study, context, **given)
        if model["promoted"]:
            self._announce(model, context)
        return model

    def _announce(self, model: Mapping[str, Any], context: Context) -> None:
        """Tells the outlets of the new champion."""
        extra = {name: model[name] for name in ASSET_EXTRA}
        champion = f"models:/{model['name']}@{model['alias']}"
        for outlet in self.outlets:
            events = context["outlet_events"][outlet]
            if isinstance(outlet, AssetAlias):
                events.add(Asset(champion), extra=extra)
            else:
                events.extra = extra


class TrainFinalOperator(StepOperator):
    """Trains the winner once more, on all the data; its output names that study as `final`, for a promotion of it.

    `run` names the final study where there shall be another one: a task that runs again goes on with its own.
    """

    step = "train_final"
    options = ("run",)
    template_fields = (*StepOperator.template_fields, *options)

    def __init__(self, *, run: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run = run

    def _given(self, study: Study, context: Context) -> dict[str, Any]:  # noqa: ARG002  # no run of the DAG is in its name
        return {"run": self.run, "pipeline": self.pipeline}


class ExtendOperator(StepOperator):
    """Opens a study again, with `changes` by dotted path, such as `{"budget.trials": 128}`, or that as JSON."""

    step = "extend"
    options = ("changes",)
    template_fields = (*StepOperator.template_fields, *options)

    def __init__(self, *, changes: str | Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.changes = changes

    def _given(self, study: Study, context: Context) -> dict[str, Any]:  # noqa: ARG002  # as above
        return {"changes": read_overrides(self.changes)}


class DeployOperator(StepOperator):
    """Brings the champion of the study's model to the target of the spec; says so where it is there already.

    The task succeeds also where the version fails its check and the one before stays: its output says `deployed`.
    """

    step = "deploy"
    options = ("run",)
    template_fields = (*StepOperator.template_fields, *options)

    def __init__(self, *, run: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run = run


class UndeployOperator(StepOperator):
    """Takes away what is deployed under the name of the study's model."""

    step = "undeploy"
    options = ("run",)
    template_fields = (*StepOperator.template_fields, *options)

    def __init__(self, *, run: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run = run


@contextmanager
def failing_at_once() -> Iterator[None]:
    """Fails the task for good where no retry mends the error."""
    from tune_tasks.errors import TuneError, Unavailable

    try:
        yield
    except Unavailable:
        raise
    except TuneError as error:
        from airflow.providers.common.compat.sdk import AirflowFailException  # at home elsewhere in 3.1

        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def run_name(dag_id: str, run_id: str) -> str:
    """Names the pipeline run of a DAG run, the same for every try and after a clear, and different for the next run.

    So the tasks of a DAG run that is cleared find their results under their own step keys and return them, and the
    next scheduled run goes on with the study. The digest keeps apart what the allowed characters or the length merge.
    """
    digest = hashlib.sha256(f"{dag_id}\n{run_id}".encode()).hexdigest()[:8]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{dag_id}.{run_id}").lstrip(".-")
    return f"{plain[:100]}-{digest}"


def pipeline_name(dag_id: str) -> str:
    """Names a DAG among the pipelines that use a store: `airflow/<dag_id>`.

    What is before it says Airflow's configuration, for several deployments whose DAGs have the same names.
    """
    return f"{conf.get('tune_tasks', 'deployment', fallback='') or 'airflow'}/{dag_id}"


def _new(given: Any, context: Context) -> str:
    """What a new study has behind its name; empty where none is asked for."""
    text = str(given).strip()
    if text.lower() in {"", "false", "none"}:
        return ""
    return run_name(context["dag"].dag_id, context["run_id"])[-8:] if text.lower() == "true" else text


def read_overrides(value: Any) -> Mapping[str, Any]:
    """Overrides as the engine takes them, from a mapping, or from one as JSON."""
    from tune_tasks.errors import ConfigError

    try:
        found = json.loads(value or "{}") if isinstance(value, str) else value or {}
    except ValueError:
        found = value
    if not isinstance(found, Mapping):
        raise ConfigError(f"overrides: {value!r} is not allowed; give a mapping of dotted paths, or one as JSON")
    return found


def _batch(value: Any, url: str) -> str:
    """The name of a batch, from that name or from what a sample task returned for the same study."""
    from tune_tasks.errors import ConfigError

    found = value if isinstance(value, Mapping) else {"batch": value, "study": url}
    if not isinstance(found.get("batch"), str):
        raise ConfigError(f"batch: {value!r} is not allowed; give the output of a SampleOperator or a batch's name")
    if found.get("study") != url:
        raise ConfigError(f"batch: {found['batch']!r} belongs to {found.get('study')}, not to the study {url}")
    return str(found["batch"])


def _whole(name: str, value: Any) -> int | None:
    """A whole number, also where a template made it text."""
    from tune_tasks.errors import ConfigError

    try:
        return None if value is None else int(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{name}: {value!r} is not allowed; it must be a whole number") from None
