"""The steps as Prefect tasks: small JSON in, one call of the engine, one log line, small JSON out.

Nothing here may depend on Prefect's memory. The study's log fixes the result of a step, so a task that runs again, in
this flow run or another, gets what it got before; Prefect's cache stays off because it can only be wrong.

Each task takes `study`, the path of a spec, a spec as a mapping, or the URL of a study; and by keyword, beside what the
step itself takes: `overrides` of a spec by dotted path (`{"budget.trials": 8}`); `amend`, which accepts overrides that
an existing study was not created with, where they say how it runs; `pipeline`, who carries the study on, by default
this deployment (name the other one to share its study); and `store`, a block with the store's credentials.

A result lists nothing: what the engine lists is counted, and can be read at `study`, so it is as small for 10,000
trials as for ten. Each task has a twin for async flows, `asample` and so on; there `await sample(...)` is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeAlias, TypeVar

from prefect import Task, get_run_logger, task

from tune_tasks_prefect.aio import Step, awaited, with_twin
from tune_tasks_prefect.opening import Source, opened_study
from tune_tasks_prefect.pipelines import MAIN
from tune_tasks_prefect.retries import AS_THE_STUDY_SAYS

P = ParamSpec("P")
R = TypeVar("R")
Result: TypeAlias = dict[str, Any]
Overrides: TypeAlias = dict[str, Any] | None

TAG = "tune_tasks"
"""Of every task run, for those who look for them."""


def _step(function: Callable[P, Result]) -> Step[P, Result]:
    """Makes a task and its twin, which Prefect tries again after 10, 20 and 40 seconds, and never caches."""
    return with_twin(_task(function, function.__name__), _task(awaited(function), function.__name__))


def _task(function: Callable[P, R], name: str) -> Task[P, R]:
    def named(parameters: dict[str, Any]) -> str:
        return f"{name} {_name(parameters.get('batch')) or parameters.get('run') or ''}".rstrip()

    run_name: Any = named  # Prefect calls a function here but types it as a class
    return task(
        name=name,
        task_run_name=run_name,
        tags={TAG},
        **AS_THE_STUDY_SAYS,
    )(function)


@_step
def sample(  # noqa: PLR0913  # as this module says
    study: Source,
    *,
    run: str = MAIN,
    round: int | None = None,  # noqa: A002  # the field's word
    count: int | None = None,
    overrides: Overrides = None,
    amend: bool = False,
    pipeline: str | None = None,
    store: str | None = None,
) -> Result:
    """Proposes the next batch: trials that advance to a larger budget, then new configurations.

    Give the result to the two tasks that follow. `run` names the pipeline run whose rounds are counted. It is the same
    for every flow run unless you say otherwise: a retried, rescheduled or repeated flow run goes on where the study
    stands, which the id of a flow run would prevent. `round` and `count` are for those who count rounds or size batches
    themselves.
    """
    given = {"overrides": overrides, "amend": amend, "pipeline": pipeline, "store": store}
    batch = _perform("sample", study, given, run=run, round=round, count=count)
    get_run_logger().info("Batch %s: %d trials to run in %s", batch["batch"], batch["trials"], batch["study"])
    return batch


@_step
def launch_trials(  # noqa: PLR0913  # as this module says
    study: Source,
    batch: str | Result,
    *,
    cluster: str | None = None,
    limit: str | None = None,
    overrides: Overrides = None,
    amend: bool = False,
    pipeline: str | None = None,
    store: str | None = None,
) -> Result:
    """Runs a batch to its end on the runner that the spec names; `batch` is its name or what `sample` gave.

    Run again after a kill, it goes on from the newest recorded checkpoints; with `execution: {runner: job}` it finds
    the study's Ray job, and no trial has lost a step. `cluster` names a block of the Ray cluster, in place of the
    address in the spec. `limit` names a global concurrency limit, of which as many slots are held as the trials use
    GPUs; none, or one that would not limit, is an error.
    """
    given = {"overrides": overrides, "amend": amend, "pipeline": pipeline, "store": store}
    outcome = _perform("launch_trials", study, given, batch=batch, cluster=cluster, limit=limit)
    states = ", ".join(f"{count} {state}" for state, count in sorted(outcome["states"].items())) or "nothing to run"
    get_run_logger().info("Batch %s: %s: %s%s", outcome["batch"], states, outcome["reason"], _best(outcome))
    return outcome


@_step
def evaluate_and_prune(
    study: Source,
    batch: str | Result,
    *,
    overrides: Overrides = None,
    amend: bool = False,
    pipeline: str | None = None,
    store: str | None = None,
) -> Result:
    """Decides which trials of a batch advance, which are pruned, and whether the study is done, and why.

    `batch` is its name, or what `sample` or `launch_trials` gave.
    """
    given = {"overrides": overrides, "amend": amend, "pipeline": pipeline, "store": store}
    verdict = _perform("evaluate_and_prune", study, given, batch=batch)
    so = "done" if verdict["done"] else "goes on"
    get_run_logger().info("Batch %s: %s: %s%s", verdict["batch"], so, verdict["reason"], _best(verdict))
    return verdict


@_step
def promote_best(
    study: Source,
    *,
    run: str = MAIN,
    overrides: Overrides = None,
    amend: bool = False,
    pipeline: str | None = None,
    store: str | None = None,
) -> Result:
    """Publishes the best model, if it beats the champion; gives the manifest that downstream tasks read.

    Called again before the study went on, it gives the same. Fails where no trial has a value.
    """
    given = {"overrides": overrides, "amend": amend, "pipeline": pipeline, "store": store}
    model = _perform("promote_best", study, given, run=run)
    get_run_logger().info("%s: %s", model["uri"] if model["promoted"] else "No new champion", model["reason"])
    return model


@_step
def train_final(
    study: Source,
    *,
    run: str | None = None,
    overrides: Overrides = None,
    amend: bool = False,
    pipeline: str | None = None,
    store: str | None = None,
) -> Result:
    """Trains the winner once more, on all the data; the result names that study as `final`, for a promotion of it.

    `run` names the final study where there shall be another one: run again, it goes on with its own.
    """
    given = {"overrides": overrides, "amend": amend, "pipeline": pipeline, "store": store}
    trained = _perform("train_final", study, given, run=run)
    get_run_logger().info("%s: %d trainings%s", trained["final"], trained["trials"], _best(trained))
    return trained


@_step
def extend(
    study: Source,
    *,
    changes: dict[str, Any],
    overrides: Overrides = None,
    amend: bool = False,
    pipeline: str | None = None,
    store: str | None = None,
) -> Result:
    """Opens a study again, with `changes` by dotted path, such as `{"budget.trials": 128}`."""
    given = {"overrides": overrides, "amend": amend, "pipeline": pipeline, "store": store}
    extended = _perform("extend", study, given, changes=changes)
    get_run_logger().info("%s: %d of %d trials", extended["study"], extended["trials"], extended["wanted"])
    return extended


@_step
def deploy(
    study: Source,
    *,
    run: str = MAIN,
    overrides: Overrides = None,
    amend: bool = False,
    pipeline: str | None = None,
    store: str | None = None,
) -> Result:
    """Brings the champion of the study's model to the target of the spec; says so where it is there already.

    A version that fails its check is no failed task: the one before stays, and the result says why.
    """
    given = {"overrides": overrides, "amend": amend, "pipeline": pipeline, "store": store}
    deployment = _perform("deploy", study, given, run=run)
    get_run_logger().info("%s: %s", deployment["url"] or deployment["target"], deployment["reason"])
    return deployment


@_step
def undeploy(
    study: Source,
    *,
    run: str = MAIN,
    overrides: Overrides = None,
    amend: bool = False,
    pipeline: str | None = None,
    store: str | None = None,
) -> Result:
    """Takes away what is deployed under the name of the study's model."""
    given = {"overrides": overrides, "amend": amend, "pipeline": pipeline, "store": store}
    deployment = _perform("undeploy", study, given, run=run)
    get_run_logger().info("%s: %s", deployment["name"], deployment["reason"])
    return deployment


asample, alaunch_trials, aevaluate_and_prune, apromote_best = (
    step.twin for step in (sample, launch_trials, evaluate_and_prune, promote_best)
)
atrain_final, aextend, adeploy, aundeploy = (step.twin for step in (train_final, extend, deploy, undeploy))


def _perform(step: str, study: Source, given: dict[str, Any], **options: Any) -> Result:
    """Opens the study, hands the call to the engine, and shows what there is to see."""
    from tune_tasks.steps import perform  # whoever only reads a flow, or starts Prefect's server, need not load it
    from tune_tasks_prefect.announcing import announce
    from tune_tasks_prefect.launching import launch
    from tune_tasks_prefect.showing import show_step

    with opened_study(step, study, **given) as found:
        if "batch" in options:
            options["batch"] = _batch(options["batch"], found.url)
        if step == "launch_trials":
            result = launch(found, store=given["store"], **options)
        else:
            more = {"pipeline": given["pipeline"]} if step == "train_final" else {}
            result = perform(step, found, **options, **more)
        small = {name: len(value) if isinstance(value, list) else value for name, value in result.items()}
        show_step(step, found, small)
        if step == "promote_best":
            announce(found, result)
    return small


def _batch(batch: Any, url: str) -> str:
    """The name of a batch of the study, out of any step's result; what is none is left for the engine to refuse."""
    from tune_tasks.errors import ConfigError

    if isinstance(batch, dict) and batch.get("study", url) != url:
        raise ConfigError(f"batch: {batch.get('batch')!r} belongs to {batch['study']}, not to the study {url}")
    return str(_name(batch))


def _name(batch: Any) -> Any:
    return batch.get("batch") if isinstance(batch, dict) else batch


def _best(result: Result) -> str:
    return "" if result["best"] is None else f"; best is trial {result['best']}: {result['value']:.6g}"
