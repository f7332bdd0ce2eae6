"""What flows on a schedule begin with: the study of the run, or why there is none; and who is the champion.

Which study that is, and whether there shall be one, says the engine. This module must not decide anything about tuning,
and loads the engine when a task runs.
"""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from prefect import get_run_logger, task
from prefect.context import FlowRunContext

from tune_tasks.errors import ConfigError
from tune_tasks_prefect.blocks import opened
from tune_tasks_prefect.pipelines import pipeline_name
from tune_tasks_prefect.retries import AS_THE_STUDY_SAYS

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from tune_tasks.spec import StudySpec

Result: TypeAlias = dict[str, Any]
Spec: TypeAlias = str | Path | dict[str, Any]


@task(**AS_THE_STUDY_SAYS)
def retrain(
    study: Spec,
    *,
    run: str | None = None,
    data: str | None = None,
    overrides: dict[str, Any] | None = None,
    amend: bool = False,
    pipeline: str | None = None,
    store: str | None = None,
) -> Result:
    """Opens the study of a run of a schedule, `<name>-<run>`, which begins with the best configurations of the last.

    `study` is a spec, as a path or a mapping, which `overrides` change. `run` names the run, by default after the time
    for which the flow run was scheduled (`run_name`): a retry, and a flow run that Prefect has run again, go on with
    the same study. `data` says what is trained on, by default the spec's: a version, or a path or URL of files, of
    which the digest is recorded too. `pipeline` and `store` are as for the other tasks.

    Gives `study`, the URL for the tasks that follow, with `series`, `run`, `reason`, `previous` (the study that it goes
    on from) and `skipped`. Where the engine wants no run, because the data is that of the last one or a promotion was
    refused of late, `skipped` is true, `study` is None, and `reason` says why.
    """
    from tune_tasks.next_week import data_named
    from tune_tasks.retraining import retrain as begin

    with opened(store) as place:
        spec = _spec(study, place, overrides)
        owner = pipeline or pipeline_name()
        outcome = begin(spec, run=run or run_name(), data=data_named(data or None), amend=amend, pipeline=owner)
    get_run_logger().info("Run %s of %s: %s", outcome.run, outcome.series, outcome.reason)
    return {
        "study": outcome.study.url if outcome.study is not None else None,
        "series": outcome.series,
        "run": outcome.run,
        "reason": outcome.reason,
        "previous": outcome.previous,
        "skipped": outcome.study is None,
    }


@task(**AS_THE_STUDY_SAYS)
def champion(study: Spec, *, overrides: dict[str, Any] | None = None, store: str | None = None) -> Result:
    """Tells who is the champion of a spec's model: what a flow that delivers goes by, for an event can be lost.

    `study` is the spec that promotions are made from, as for `retrain`. Gives `model`, `alias`, `version` and `study`,
    the URL of the study that it comes from, with `trained`: `search`, or `final` where it was trained on all the data.
    All three are None where there is no champion yet, and the last two where someone else made it the champion.
    """
    from tune_tasks.registry import FOLDER, Champions, Registry, default_uri
    from tune_tasks.store import open_objects
    from tune_tasks.studies import open_study, study_url
    from tune_tasks_prefect.announcing import trained

    with opened(store) as place:
        spec = _spec(study, place, overrides)
        root, promotion = study_url(spec).rpartition("/")[0], spec.promotion
        uri = default_uri(promotion.registry, root)
        ledger, registry = open_objects(f"{root}/{FOLDER}"), Registry(uri) if uri else None
        found, _ = Champions(ledger, spec.model, promotion.alias, registry).current(time=time.time())
        source = open_study(found.study) if found is not None and found.study else None
    version = found.version if found is not None else None
    url = source.url if source is not None else None
    get_run_logger().info("The %s of %s: %s", promotion.alias, spec.model, f"version {version}" if version else "none")
    return {
        "model": spec.model,
        "alias": promotion.alias,
        "version": version,
        "study": url,
        "trained": trained(source) if source is not None else None,
    }


def run_name() -> str:
    """Names the run of a schedule after the time for which this flow run was scheduled: its day, and the time if any.

    A flow run that no schedule made is named after its moment, and a digest of its id. Raises `ConfigError` outside a
    flow run.
    """
    flow_run, moment = _flow_run(), scheduled_for()
    day, clock = f"{moment:%Y-%m-%d}", f"T{moment:%H%M%S}"
    if not flow_run.auto_scheduled:
        return f"{day}{clock}-{hashlib.sha256(str(flow_run.id).encode()).hexdigest()[:8]}"
    return day if clock == "T000000" else f"{day}{clock}"


def scheduled_for() -> datetime:
    """When this flow run was to begin, in UTC: the same where Prefect runs it again. Raises as `run_name`."""
    return (_flow_run().expected_start_time or datetime.now(UTC)).astimezone(UTC)


def is_late(by: timedelta) -> bool:
    """Whether a schedule's flow run begins so much too late, after days without a worker say; one run again is not."""
    flow_run = _flow_run()
    return flow_run.auto_scheduled and flow_run.run_count <= 1 and datetime.now(UTC) - scheduled_for() > by


def _flow_run() -> FlowRun:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise ConfigError("run: missing; outside a flow run, say which run of the schedule this is")
    return context.flow_run


def _spec(study: Spec, place: str | None, overrides: dict[str, Any] | None) -> StudySpec:
    from tune_tasks.spec import load_spec
    from tune_tasks.studies import is_spec_file

    if not isinstance(study, dict) and not is_spec_file(study):
        raise ConfigError(f"study: {str(study)!r} is not allowed; a run of a schedule is made from a spec")
    return load_spec(study, {**({"store": place} if place else {}), **(overrides or {})})
