"""The flow `tune`: the loop over the four tasks, in one flow run; and the flow that stops what a cancelled one left.

It must not do anything that the tasks do not, and a trial must never become a flow or task run of its own: a flow run
costs a second, and a lost Ray worker is something that Prefect cannot see.
"""

# Without the annotations of the future: what `tune.serve` sends to the process of a run are the function and the names
# that its code uses, and there Prefect could not tell what the text of an annotation means.
from itertools import count, islice
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from pydantic import Field

from tune_tasks_prefect.form import Overrides
from tune_tasks_prefect.hooks import stop_cancelled, stop_jobs, tell_jobs
from tune_tasks_prefect.opening import Source
from tune_tasks_prefect.pipelines import MAIN, run_name
from tune_tasks_prefect.tasks import (
    aevaluate_and_prune,
    alaunch_trials,
    apromote_best,
    asample,
    evaluate_and_prune,
    launch_trials,
    promote_best,
    sample,
)

Rounds = Annotated[int, Field(ge=1)] | None


def _named() -> str:
    """Names the flow run after its study, as far as the parameters say what that is called."""
    study = flow_run.get_parameters().get("study")
    if isinstance(study, dict):
        return f"tune {study.get('name', '')}".rstrip()
    path = Path(str(study))
    return f"tune {path.parent.name}/{path.name}" if path.suffix else f"tune {path.name}"


_OPTIONS: dict[str, Any] = {
    "flow_run_name": _named,
    "result_serializer": "json",
    "on_cancellation": [stop_jobs],
    "on_crashed": [tell_jobs],
    "on_failure": [tell_jobs],
}


@flow(name="tune", **_OPTIONS)
def tune(  # noqa: PLR0913  # each is a parameter of the run that Prefect shows
    study: Source,
    *,
    run: str | None = None,
    rounds_limit: Rounds = None,
    promote: bool = True,
    overrides: Overrides = {},  # noqa: B006  # Prefect shows it as the form's default, and nobody changes it
    amend: bool = False,
    pipeline: str | None = None,
    store: str | None = None,
    cluster: str | None = None,
    limit: str | None = None,
) -> dict[str, Any]:
    """Samples, launches and evaluates until the study is done, then promotes the best model.

    `study` is the path of a spec, a mapping, or the URL of a study. Run again, after a kill or for any other reason,
    it goes on where the study stands. With `rounds_limit` it stops early, and leaves the promotion to the run that
    finishes the study; a deployment's run that is run again then counts the rounds it has had, and the next run gets
    as many anew. Cancelled, it stops the study's Ray job. The other parameters are those of the tasks.
    Gives the last verdict, and under `model` the promoted model's manifest or None.
    """
    given: dict[str, Any] = {"overrides": overrides, "amend": amend, "pipeline": pipeline, "store": store}
    own, counts = _pipeline_run(run, rounds_limit)
    verdict: dict[str, Any] = {"done": False}
    for number in islice(count(), rounds_limit):
        batch = sample(study, run=own, round=number if counts else None, **given)
        outcome = launch_trials(study, batch, cluster=cluster, limit=limit, **given)
        verdict = evaluate_and_prune(study, outcome, **given)
        if verdict["done"]:
            break
    else:
        get_run_logger().info("Stopped after %d rounds; run it again to go on", rounds_limit)
    return {**verdict, "model": promote_best(study, run=own, **given) if promote and verdict["done"] else None}


@flow(name="tune", **_OPTIONS)
async def atune(  # noqa: PLR0913  # as above
    study: Source,
    *,
    run: str | None = None,
    rounds_limit: Rounds = None,
    promote: bool = True,
    overrides: Overrides = {},  # noqa: B006  # Prefect shows it as the form's default, and nobody changes it
    amend: bool = False,
    pipeline: str | None = None,
    store: str | None = None,
    cluster: str | None = None,
    limit: str | None = None,
) -> dict[str, Any]:
    """The same for async flows, which await it: several studies at once by `asyncio.gather`, say."""
    given: dict[str, Any] = {"overrides": overrides, "amend": amend, "pipeline": pipeline, "store": store}
    own, counts = _pipeline_run(run, rounds_limit)
    verdict: dict[str, Any] = {"done": False}
    for number in islice(count(), rounds_limit):
        batch = await asample(study, run=own, round=number if counts else None, **given)
        outcome = await alaunch_trials(study, batch, cluster=cluster, limit=limit, **given)
        verdict = await aevaluate_and_prune(study, outcome, **given)
        if verdict["done"]:
            break
    else:
        get_run_logger().info("Stopped after %d rounds; run it again to go on", rounds_limit)
    return {**verdict, "model": await apromote_best(study, run=own, **given) if promote and verdict["done"] else None}


@flow(name="stop-cancelled", flow_run_name="stop {cancelled}")
def stop_cancelled_run(cancelled: UUID) -> bool:
    """Stops the Ray jobs of the flow run with the id `cancelled`, and ends that run; for an automation to start.

    Prefect calls no hook for a run whose process and runner are both dead, nor for one that waits to be run again.
    A run that nobody cancelled is left alone, and the result is false.
    """
    return stop_cancelled(cancelled)


def _pipeline_run(run: str | None, rounds_limit: int | None) -> tuple[str, bool]:
    """The pipeline run to go by, and whether its rounds are counted from 0 by the flow run itself.

    By `main` any flow run goes on where the study stands. Only rounds that are limited have to be this flow run's own:
    one that is killed after its last round, and run again, would get as many anew.
    """
    if run is not None or rounds_limit is None:
        return run or MAIN, False
    own = run_name()
    return own, own != MAIN
