"""A retry policy of Airflow 3.3 on a step: what may pass reaches its rules, what no retry mends never does."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from tests.studies import write_study
from tune_tasks import errors, steps
from tune_tasks_airflow.operators import SampleOperator

policies = pytest.importorskip("airflow.sdk.definitions.retry_policy", reason="Airflow has retry policies from 3.3 on")


def raised(folder: Path, policy: Any) -> BaseException:
    """What the task raises, as the policy is asked about it."""
    task = SampleOperator(task_id="task", study=write_study(folder), retry_policy=policy)
    context: Any = {"dag": SimpleNamespace(dag_id="d"), "run_id": "r"}
    with pytest.raises(Exception) as caught:  # noqa: PT011  # the test looks at which it is
        task.execute(context)
    return caught.value


def test_a_rule_by_name_says_how_long_to_wait_for_a_store_or_a_cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "perform", failing(errors.Unreachable("the store is away")))
    rule = policies.RetryRule("tune_tasks.errors.Unavailable", retry_delay=timedelta(minutes=5))
    policy = policies.ExceptionRetryPolicy([rule], default=policies.RetryAction.FAIL)
    decision = policy.evaluate(raised(tmp_path, policy), 1, 3)
    assert (decision.action, decision.retry_delay) == (policies.RetryAction.RETRY, timedelta(minutes=5))


@pytest.mark.parametrize("name", ["ConfigError", "Fenced", "NothingToPromote"])
def test_what_no_retry_mends_fails_whatever_the_policy_says(tmp_path, monkeypatch, name):
    monkeypatch.setattr(steps, "perform", failing(getattr(errors, name)("no use")))
    policy = policies.ExceptionRetryPolicy([policies.RetryRule(f"tune_tasks.errors.{name}")])
    assert isinstance(raised(tmp_path, policy), AirflowFailException)  # for which Airflow asks no policy


def failing(error: Exception) -> Any:
    def perform(*_: Any, **__: Any) -> Any:
        raise error

    return perform
