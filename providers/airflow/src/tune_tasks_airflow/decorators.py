"""The operators as decorators, `@task.tune_search` and one for each of the four tasks.

The function that is decorated says which study: it returns a spec as a mapping, the path of one, or a study's URL, so
that a spec can be made by Python when the task runs. Options of the operator are those of the decorator. This module
must not decide anything about tuning.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory

from tune_tasks_airflow.launch import LaunchTrialsOperator, TuneOperator
from tune_tasks_airflow.operators import (
    EvaluateAndPruneOperator,
    PromoteBestOperator,
    SampleOperator,
    StepOperator,
)

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator


class _Decorated(DecoratedOperator, StepOperator):
    """An operator whose study a function names."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(study="", **kwargs)

    def _run(self, context: Context, **more: Any) -> dict[str, Any]:
        names = list(inspect.signature(self.python_callable).parameters)[len(self.op_args) :]
        known = {**context, **self.op_kwargs}
        self.study = self.python_callable(*self.op_args, **{name: known[name] for name in names if name in known})
        return super()._run(context, **more)


def _decorator(name: str, operator: type[StepOperator]) -> Callable[..., TaskDecorator]:
    fields = {
        "template_fields": (*DecoratedOperator.template_fields, *operator.template_fields),
        "custom_operator_name": f"@task.{name}",
    }
    made = type(f"_{operator.__name__}", (_Decorated, operator), fields)

    def decorator(python_callable: Callable[..., Any] | None = None, **options: Any) -> TaskDecorator:
        return task_decorator_factory(
            python_callable=python_callable, multiple_outputs=False, decorated_operator_class=made, **options
        )

    decorator.__doc__ = f"Makes a function, which names a study, a task: see `{operator.__name__}`."
    return decorator


tune_search = _decorator("tune_search", TuneOperator)
tune_sample = _decorator("tune_sample", SampleOperator)
tune_launch_trials = _decorator("tune_launch_trials", LaunchTrialsOperator)
tune_evaluate_and_prune = _decorator("tune_evaluate_and_prune", EvaluateAndPruneOperator)
tune_promote_best = _decorator("tune_promote_best", PromoteBestOperator)
