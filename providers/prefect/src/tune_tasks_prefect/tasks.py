"""The four steps as Prefect tasks: small JSON in, one call of the engine, one log line, small JSON out.

Nothing here may depend on Prefect's memory. The study's log fixes the result of a step, so a task that runs again, in
this flow run or another, gets what it got before; Prefect's cache stays off because it can only be wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias

from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from tune_tasks.errors import ConfigError
from tune_tasks_prefect.retries import worth_retrying

P = ParamSpec("P")
Result: TypeAlias = dict[str, Any]
Source: TypeAlias = str | Path | dict[str, Any]
"""A study: the path of its spec, the spec as a mapping, or the URL of a study that exists.

Prefect keeps parameters on its server, so none of them may hold a key or a token; those come from the environment.
"""

MAIN = "main"
"""The pipeline run of whoever does not name one, as the engine calls it."""

_CREDENTIALS = re.compile(r"://[^/:@'\"\s]+:[^'\"\s]*@")


def _step(function: Callable[P, Result]) -> Task[P, Result]:
    """Makes a task that Prefect retries after 10, 20 and 40 seconds, where that can help, and never caches."""

    def named(parameters: dict[str, Any]) -> str:
        return f"{function.__name__} {_name(parameters.get('batch')) or parameters.get('run') or ''}".rstrip()

    name: Any = named  # Prefect calls a function here but types it as a class
    return task(
        task_run_name=name,
        retries=3,
        retry_delay_seconds=exponential_backoff(10),
        retry_condition_fn=worth_retrying,
        cache_policy=NO_CACHE,
        persist_result=False,
        result_serializer="json",
    )(function)


@_step
def sample(study: Source, *, run: str = MAIN, round: int | None = None, count: int | None = None) -> Result:  # noqa: A002  # the field's word
    """Proposes the next batch: trials that advance to a larger budget, then new configurations.

    `run` names the pipeline run whose rounds are counted. It is the same for every flow run unless you say otherwise:
    a retried, rescheduled or repeated flow run goes on where the study stands, which the id of a flow run would
    prevent. `round` and `count` are for those who count rounds or size batches themselves.
    """
    batch = _perform("sample", study, run=run, round=round, count=count)
    get_run_logger().info("Batch %s: %d trials to run in %s", batch["batch"], len(batch["trials"]), batch["study"])
    return batch


@_step
def launch_trials(study: Source, batch: str | Result) -> Result:
    """Runs a batch to its end on the runner that the spec names; `batch` is its name or what `sample` gave.

    Run again after a kill, it goes on from the newest recorded checkpoints.
    """
    outcome = _perform("launch_trials", study, batch=_name(batch))
    states = ", ".join(f"{count} {state}" for state, count in sorted(outcome["states"].items())) or "nothing to run"
    get_run_logger().info("Batch %s: %s: %s%s", outcome["batch"], states, outcome["reason"], _best(outcome))
    return outcome


@_step
def evaluate_and_prune(study: Source, batch: str | Result) -> Result:
    """Decides which trials of a batch advance, which are pruned, and whether the study is done, and why.

    `batch` is its name, or what `sample` or `launch_trials` gave.
    """
    verdict = _perform("evaluate_and_prune", study, batch=_name(batch))
    so = "done" if verdict["done"] else "goes on"
    get_run_logger().info("Batch %s: %s: %s%s", verdict["batch"], so, verdict["reason"], _best(verdict))
    return verdict


@_step
def promote_best(study: Source, *, run: str = MAIN) -> Result:
    """Publishes the best model, if it beats the champion; gives the manifest that downstream tasks read.

    Called again before the study went on, it gives the same. Fails where no trial has a value.
    """
    model = _perform("promote_best", study, run=run)
    get_run_logger().info("%s: %s", model["uri"] if model["promoted"] else "No new champion", model["reason"])
    return model


@_step
def train_final(study: Source, *, run: str | None = None) -> Result:
    """Trains the winner once more, on all the data; the result names that study as `final`, for a promotion of it.

    `run` names the final study where there shall be another one: run again, it goes on with its own.
    """
    trained = _perform("train_final", study, run=run)
    get_run_logger().info("%s: %d trainings%s", trained["final"], trained["trials"], _best(trained))
    return trained


@_step
def extend(study: Source, *, changes: dict[str, Any]) -> Result:
    """Opens a study again, with `changes` by dotted path, such as `{"budget.trials": 128}`."""
    extended = _perform("extend", study, changes=changes)
    get_run_logger().info("%s: %d of %d trials", extended["study"], extended["trials"], extended["wanted"])
    return extended


@_step
def deploy(study: Source, *, run: str = MAIN) -> Result:
    """Brings the champion of the study's model to the target of the spec; says so where it is there already.

    A version that fails its check is no failed task: the one before stays, and the result says why.
    """
    deployment = _perform("deploy", study, run=run)
    get_run_logger().info("%s: %s", deployment["url"] or deployment["target"], deployment["reason"])
    return deployment


@_step
def undeploy(study: Source, *, run: str = MAIN) -> Result:
    """Takes away what is deployed under the name of the study's model."""
    deployment = _perform("undeploy", study, run=run)
    get_run_logger().info("%s: %s", deployment["name"], deployment["reason"])
    return deployment


def _perform(step: str, study: Source, **options: Any) -> Result:
    """Hands a call to the engine, unless it names a URL with credentials: Prefect shows parameters to everyone."""
    from tune_tasks.steps import perform  # whoever only reads a flow, or starts Prefect's server, need not load it

    if _CREDENTIALS.search(str(study)):
        raise ConfigError(
            "study: it names a URL with credentials, and Prefect has now stored them among the parameters; "
            "replace them, and give the new ones to the worker's environment"
        )
    return perform(step, study, **options)


def _name(batch: Any) -> Any:
    """The name of a batch, out of any step's result; what is neither is left for the engine to refuse."""
    return batch.get("batch") if isinstance(batch, dict) else batch


def _best(result: Result) -> str:
    return "" if result["best"] is None else f"; best is trial {result['best']}: {result['value']:.6g}"
