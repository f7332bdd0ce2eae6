"""The flow `tune`: the loop over the four tasks, in one flow run.

It must not do anything that the tasks do not, and a trial must never become a flow or task run of its own: a flow run
costs a second, and a lost Ray worker is something that Prefect cannot see.
"""

from __future__ import annotations

from itertools import count, islice
from typing import Annotated, Any

from prefect import flow, get_run_logger
from pydantic import Field

from tune_tasks_prefect.tasks import MAIN, Source, evaluate_and_prune, launch_trials, promote_best, sample


@flow(name="tune", result_serializer="json")
def tune(
    study: Source,
    *,
    run: str = MAIN,
    rounds_limit: Annotated[int, Field(ge=1)] | None = None,
    promote: bool = True,
) -> dict[str, Any]:
    """Samples, launches and evaluates until the study is done, then promotes the best model.

    `study` is the path of a spec, a mapping, or the URL of a study. Run again, after a kill or for any other reason,
    it goes on where the study stands. With `rounds_limit` it stops early, and leaves the promotion to the run that
    finishes the study. Gives the last verdict, and under `model` the promoted model's manifest or None.
    """
    verdict: dict[str, Any] = {"done": False}
    for _ in islice(count(), rounds_limit):
        batch = sample(study, run=run)
        outcome = launch_trials(study, batch)
        verdict = evaluate_and_prune(study, outcome)
        if verdict["done"]:
            break
    else:
        get_run_logger().info("Stopped after %d rounds; run it again to go on", rounds_limit)
    return {**verdict, "model": promote_best(study, run=run) if promote and verdict["done"] else None}
