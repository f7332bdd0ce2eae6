"""A study as rounds in a DAG, or as one launch that streams, and a promotion at their end.

What comes after the verdict that the study is done is skipped. This module only wires the operators up: it must not
decide anything about tuning, and reads a spec while Airflow parses a DAG only where nobody says how many rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup, chain

from tune_tasks_airflow.launch import LaunchTrialsOperator
from tune_tasks_airflow.operators import EvaluateAndPruneOperator, PromoteBestOperator, SampleOperator

if TYPE_CHECKING:
    from airflow.sdk import Asset, AssetAlias, Context, XComArg

    from tune_tasks.studies import Study

MOST = 100
"""Rounds that a DAG may have because of its spec: with many more, Airflow is slow to parse it and to show it."""


class TuneTaskGroup(TaskGroup):
    """A task group whose `output` is the promoted model, for the tasks that follow."""

    output: XComArg


class NextRoundOperator(SampleOperator):
    """Samples as its parent does; where the study is done, the task is skipped, and so are the rounds behind it.

    A round that was begun is never skipped: cleared after the last verdict, its task still returns its batch.
    """

    def _perform(self, study: Study, context: Context, **given: Any) -> dict[str, Any]:
        from airflow.providers.common.compat.sdk import AirflowSkipException  # at home elsewhere in 3.1

        batch = super()._perform(study, context, **given)
        if batch["batch"] not in study.state.batches:
            raise AirflowSkipException(f"{study.url} is done: {study.state.reason}")
        return batch


def tune_rounds(
    study: str | Path | Mapping[str, Any] | XComArg,
    *,
    rounds: int | None = None,
    group_id: str = "tune",
    run: str | None = None,
    count: int | str | None = None,
    launch: Mapping[str, Any] | None = None,
    outlets: Sequence[Asset | AssetAlias] = (),
    **options: Any,
) -> TuneTaskGroup:
    """Chains sample, launch and evaluate `rounds` times, then promotes the best trial.

    A DAG has a fixed number of tasks and a search has no fixed number of rounds. Give enough of them: twice the trials
    divided by the size of a batch, and one for every rung of the scheduler. (64 trials in batches of 32 under ASHA with
    four rungs were done after 7.) Those that are left when the study is done are skipped. With rounds too few the
    promotion takes the best trial so far and logs that the study is not done; the next run of the DAG goes on with it.
    Without `rounds` they are counted so from `study`, a spec that is there when the DAG is parsed, and from `overrides`
    where they are a mapping; loading the engine then costs each parse of the file some tenths of a second.

    The size of a batch is `count`, else `execution.batch` of the spec, else four times its concurrency.
    `run` is the pipeline run, by default one for each run of the DAG (`run_name`): name it yourself for two groups on
    one study in one DAG, whose rounds would have the same keys. `launch` goes to the launch operators alone
    (`{"deferrable": True}`), `outlets` to the promotion, everything else to each of the operators.
    """
    if rounds is None:
        rounds = _enough(study, options.get("overrides"), count)
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}, must be at least 1")
    given = {"study": study, **options}
    group = TuneTaskGroup(group_id=group_id)
    with group:
        steps = [_round(number, launch or {}, run=run, count=count, **given) for number in range(rounds)]
        # Not "none_failed": where what comes before the group is skipped, the promotion is skipped with the rounds.
        promotion = PromoteBestOperator(
            task_id="promote_best", run=run, outlets=outlets, trigger_rule="none_failed_min_one_success", **given
        )
        chain(*steps, promotion)
        if rounds > 1:
            chain(steps[0].evaluate, promotion)
    group.output = promotion.output
    return group


def tune_streaming(
    study: str | Path | Mapping[str, Any],
    *,
    overrides: str | Mapping[str, Any] | None = None,
    **options: Any,
) -> TuneTaskGroup:
    """One round whose launch samples and evaluates on its own until the budget is spent, then a promotion.

    The best use of a cluster, and a single long task. `study` is a spec, which gets `execution: {flow: streaming}`; for
    one that is there already with that flow, take `tune_rounds` with one round. What else is given goes there.
    """
    return tune_rounds(study, rounds=1, overrides=_streaming(overrides), **options)


class _Round(TaskGroup):
    evaluate: EvaluateAndPruneOperator


def _round(number: int, launch: Mapping[str, Any], *, run: str | None, count: int | str | None, **given: Any) -> _Round:
    group = _Round(f"round_{number}")
    with group:
        first_or_next = NextRoundOperator if number else SampleOperator
        sample = first_or_next(task_id="sample", run=run, round=number, count=count, **given)
        trials = LaunchTrialsOperator(task_id="launch_trials", batch=sample.output, **given, **launch)
        group.evaluate = EvaluateAndPruneOperator(task_id="evaluate_and_prune", batch=sample.output, **given)
        chain(sample, trials, group.evaluate)
    return group


def _streaming(overrides: str | Mapping[str, Any] | None) -> str | dict[str, Any]:
    """The overrides, and the flow after them. What is text is rendered when a task runs, so the flow is put in then."""
    flow = {"execution.flow": "streaming"}
    if isinstance(overrides, str):
        given = "{% set given %}" + overrides + "{% endset %}"
        return given + "{{ dict(macros.json.loads(given or '{}'), **" + repr(flow) + ") | tojson }}"
    return {**(overrides or {}), **flow}


def _enough(study: Any, overrides: Any, count: int | str | None) -> int:
    """The rounds after which the study of a spec is done. Raises `ValueError` where the spec cannot be read yet."""
    from tune_tasks import decide
    from tune_tasks.plugins import scheduler
    from tune_tasks.spec import load_spec

    try:
        spec = load_spec(study, overrides if isinstance(overrides, Mapping) else None)
        found = decide.rounds(spec, scheduler(spec), int(count) if count else None)
    except Exception as error:
        raise ValueError(
            f"rounds: give a number, for the spec cannot be read when the DAG is parsed: {error}"
        ) from error
    if found > MOST:
        raise ValueError(
            f"rounds: the spec may take {found}, and a DAG has at most {MOST}; "
            "give a larger count, fewer rounds, or take tune_streaming"
        )
    return found
