"""A study whose spec Python makes when the task runs, by decorators."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task


@dag(schedule=None, params={"spec": "", "trials": 9})
def decorated() -> None:
    @task.tune_search(overrides={"budget.trials": "{{ params.trials }}"})
    def search(params: dict[str, Any]) -> str:
        return str(params["spec"])

    @task.tune_promote_best
    def winner(found: dict[str, Any]) -> str:
        return str(found["study"])

    winner(search())


decorated()
