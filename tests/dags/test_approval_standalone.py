"""In a real Airflow: a person answers over its API, and the scheduler has the DAG that follows deploy the model."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.airflow_standalone import Airflow, DagRun, until
from tests.studies import write_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(450)]  # Airflow takes minutes to start on a busy machine

ASK = "approval.ask"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    target = {"name": "folder", "url": str(tmp_path / "served")}
    return write_study(tmp_path, promotion={"registry": "none", "approval": "required"}, deploy={"target": target})


def waiting(airflow: Airflow, spec: Path) -> DagRun:
    """A run that has come to its question."""
    run = airflow.trigger("nightly", spec=str(spec), data="monday")
    run.reaches(ASK, "awaiting_input")
    time.sleep(3)  # Airflow fails a task that is answered before its scheduler has heard from the worker
    return run


def question(run: DagRun, choice: str | None = None, why: str = "") -> dict[str, Any]:
    """What a person is asked; with a choice, it is answered."""
    path = f"/dags/{run.dag}/dagRuns/{run.id}/taskInstances/{ASK}/-1/hitlDetails"
    answer = {"chosen_options": [choice], "params_input": {"why": why}}
    found: dict[str, Any] = run.airflow.ask("PATCH", path, answer) if choice else run.airflow.ask("GET", path)
    return found


def test_a_model_that_a_person_agrees_to_is_deployed_by_the_dag_that_follows(airflow, spec, tmp_path):
    airflow.ask("GET", "/dags/following")
    run = waiting(airflow, spec)
    asked = question(run)
    assert "| gate | verdict | why |" in asked["body"] or "| # | model |" in asked["body"]
    assert asked["options"] == ["Approve", "Reject"]
    question(run, "Approve", "reads well")
    assert run.finish() == "success"
    model = run.result("approval.promote_best")
    assert (model["promoted"], model["approval"]["why"]) == (True, "reads well")
    current = tmp_path / "served" / "small" / "current.json"
    until(current.exists, lambda: str(airflow.ask("GET", "/dags/following/dagRuns")))
    assert json.loads(current.read_text())["version"] == str(model["version"] or 1)


def test_a_model_that_a_person_refuses_is_not_promoted_and_nothing_follows(airflow, spec, tmp_path):
    before = airflow.ask("GET", "/dags/following/dagRuns")["total_entries"]
    run = waiting(airflow, spec)
    question(run, "Reject", "too slow")
    assert run.finish() == "success"
    model = run.result("approval.promote_best")
    assert model["promoted"] is False
    assert model["reason"].endswith(": too slow")
    assert airflow.ask("GET", "/dags/following/dagRuns")["total_entries"] == before
    assert not (tmp_path / "served").exists()
