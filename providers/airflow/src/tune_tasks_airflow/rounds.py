"""A study as a fixed number of rounds in a DAG, and a promotion at their end.

It only wires the operators up: this module must not read a spec, for Airflow parses it again and again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup, chain

from tune_tasks_airflow.launch import LaunchTrialsOperator
from tune_tasks_airflow.operators import EvaluateAndPruneOperator, PromoteBestOperator, SampleOperator

if TYPE_CHECKING:
    from airflow.sdk import XComArg


class TuneTaskGroup(TaskGroup):
    """A task group whose `output` is the promoted model, for the tasks that follow."""

    output: XComArg


def tune_rounds(
    study: str | Path | Mapping[str, Any],
    *,
    rounds: int,
    group_id: str = "tune",
    run: str | None = None,
    count: int | str | None = None,
    **options: Any,
) -> TuneTaskGroup:
    """Chains sample, launch and evaluate `rounds` times, then promotes the best trial.

    A DAG has a fixed number of tasks and a search has no fixed number of rounds, so choose `rounds` in one of two ways:

    - With `execution: {flow: streaming}` in the spec one round is enough: its launch samples and evaluates on its own
      until the budget is spent. The best use of a cluster, and a single long task.
    - Otherwise give enough rounds: twice the trials divided by the size of a batch, and one for every rung of the
      scheduler. (64 trials in batches of 32 under ASHA with four rungs were done after 7.) A study that is done earlier
      gets empty batches, so rounds too many cost a second or two each. With rounds too few the promotion takes the best
      trial so far and logs that the study is not done; the next run of the DAG goes on with it.

    The size of a batch is `count`, else `execution.batch` of the spec, else four times its concurrency.
    `run` is the pipeline run, by default one for each run of the DAG (`run_name`): name it yourself for two groups on
    one study in one DAG, whose rounds would have the same keys. Everything else goes to each of the operators.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}, must be at least 1")
    given = {"study": study, **options}
    group = TuneTaskGroup(group_id=group_id)
    with group:
        steps = [_round(number, run=run, count=count, **given) for number in range(rounds)]
        promotion = PromoteBestOperator(task_id="promote_best", run=run, **given)
        chain(*steps, promotion)
    group.output = promotion.output
    return group


def _round(number: int, *, run: str | None, count: int | str | None, **given: Any) -> TaskGroup:
    with TaskGroup(f"round_{number}") as group:
        sample = SampleOperator(task_id="sample", run=run, round=number, count=count, **given)
        launch = LaunchTrialsOperator(task_id="launch_trials", batch=sample.output, **given)
        evaluate = EvaluateAndPruneOperator(task_id="evaluate_and_prune", batch=sample.output, **given)
        chain(sample, launch, evaluate)
    return group
