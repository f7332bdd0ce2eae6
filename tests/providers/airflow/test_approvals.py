"""A promotion that waits: a person is asked in Airflow, with the leaderboard, and what they answer is in the study."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.exceptions import HITLTriggerEventError
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

import tune_tasks as tt
from tests.airflow_home import migrate, run
from tests.studies import write_study
from tune_tasks.promotion.approval import promotion_key
from tune_tasks_airflow.approvals import AnswerOperator, AskOperator, approval
from tune_tasks_airflow.operators import PromoteBestOperator

MONDAY = datetime(2026, 11, 2, tzinfo=UTC)
ASK, ANSWER, PROMOTE = "approval.ask", "approval.answer", "approval.promote_best"
OPEN = "/api/v2/dags/~/dagRuns/~/hitlDetails"
"""Where an Airflow says what it asks people."""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return write_study(tmp_path, promotion={"registry": "none", "approval": "required"})


@pytest.fixture
def study(spec: Path) -> tt.Study:
    """A study that is done, whose promotion waits."""
    study = tt.tune(spec)
    assert tt.promote_best(study).pending
    return study


def model(study: tt.Study) -> dict[str, Any]:
    """What a promotion gives to those that follow."""
    return {"study": study.url, **tt.promote_best(study).model_dump(mode="json")}


def said(choice: str, by: str | None = "ada", why: str = "") -> dict[str, Any]:
    """What Airflow says of an answer."""
    user = None if by is None else {"id": "1", "name": by}
    return {"chosen_options": [choice], "params_input": {"why": why}, "responded_by_user": user}


def answer(study: tt.Study, given: Mapping[str, Any]) -> dict[str, Any]:
    operator = AnswerOperator(task_id="answer", study=study.url, said=given, run="main")
    context: Any = {"dag": SimpleNamespace(dag_id="by_hand")}
    result: dict[str, Any] = operator.execute(context)
    return result


@pytest.fixture(scope="module")
def api() -> Iterator[Any]:
    """The API of this Airflow, spoken to by an administrator."""
    migrate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "of the tests " * 8)
        from airflow.api_fastapi.app import create_app
        from fastapi.testclient import TestClient

        client = TestClient(create_app("core"), raise_server_exceptions=False)
        token = client.get("/auth/token").json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


@contextmanager
def a_person(api: Any, choice: str, why: str) -> Iterator[list[dict[str, Any]]]:
    """Answers what is asked in this Airflow, over its API, as the buttons do; collects what was asked.

    A look that fails, because the task holds the lock of the database, is repeated.
    """
    over, asked = threading.Event(), list[dict[str, Any]]()

    def watch() -> None:
        while not over.wait(0.3):
            look = api.get(OPEN, params={"response_received": False})
            for detail in look.json()["hitl_details"] if look.is_success else ():
                task = detail["task_instance"]
                where = f"/api/v2/dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}"
                body = {"chosen_options": [choice], "params_input": {"why": why}}
                if api.patch(f"{where}/-1/hitlDetails", json=body).is_success:
                    asked.append(detail)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join(30)


def test_a_person_who_agrees_makes_the_model_the_champion(spec, api):
    with a_person(api, "Approve", "reads well") as asked:
        done = run("tests", "nightly", {"spec": str(spec)}, MONDAY)
    assert done.result("tune.promote_best")["pending"] is True
    assert "success" == done.states[ASK] == done.states[ANSWER] == done.states[PROMOTE]
    promoted = done.result(PROMOTE)
    assert promoted["promoted"] is True
    assert promoted["approval"]["why"] == "reads well"
    assert promoted["approval"]["by"] == done.result(ANSWER)["by"] != ""
    (detail,) = asked
    assert f"trial {promoted['trial']}" in detail["body"]
    assert "Approval: waits until" in detail["body"]


def test_a_person_who_refuses_leaves_the_champion_and_the_run_ends_well(spec, api):
    with a_person(api, "Reject", "too slow"):
        done = run("tests", "nightly", {"spec": str(spec)}, MONDAY)
    assert "success" == done.states[ASK] == done.states[ANSWER] == done.states[PROMOTE]
    assert "failed" not in done.states.values()
    kept = done.result(PROMOTE)
    assert (kept["promoted"], kept["pending"]) == (False, False)
    assert kept["reason"].startswith("rejected by ")
    assert kept["reason"].endswith(": too slow")


def test_nobody_is_asked_where_nobody_has_to_agree(tmp_path):
    done = run("tests", "nightly", {"spec": str(write_study(tmp_path))}, MONDAY)
    assert (done.states[ASK], done.states[ANSWER], done.states[PROMOTE]) == ("skipped", "skipped", "success")
    assert done.result(PROMOTE) == done.result("tune.promote_best")


def asking(study: tt.Study) -> Any:
    return AskOperator(task_id="ask", model=model(study), run="main")


def test_nobody_is_asked_what_was_answered_by_other_means(study):
    before = asking(study)
    tt.approve(study, by="ada", why="by hand")
    with pytest.raises(AirflowSkipException, match="the promotion was approved by ada already"):
        before.execute({})


def test_a_person_is_asked_for_as_long_as_the_promotion_waits_and_a_second_longer(study):
    operator = asking(study)
    left = operator._prepare({}, "main")
    decided = study.state.steps[f"{promotion_key(study.state, 'main')}/decision"]
    assert 0 < left.total_seconds() - (decided["expires"] - study.now()) < 5
    assert operator.body.startswith(study.url)


def test_a_promotion_that_nobody_answers_is_let_go(study):
    with pytest.raises(AirflowSkipException, match="nobody answered in time"):
        asking(study).execute_complete({}, {"error": "late", "error_type": "timeout"})
    with pytest.raises(HITLTriggerEventError):
        asking(study).execute_complete({}, {"error": "odd", "error_type": "unknown"})


def test_an_answer_is_recorded_with_who_and_why(study):
    told = answer(study, said("Reject", by="Grace", why=" too slow "))
    assert told == {"study": study.url, "approved": False, "by": "Grace", "why": "too slow"}
    assert tt.promote_best(study).reason == "rejected by Grace: too slow"


def test_an_answer_without_a_name_or_a_reason_says_so(study):
    told = answer(study, said("Approve", by=None))
    assert told["approved"] is True
    assert (told["by"], told["why"]) == ("a default of Airflow", "answered in Airflow, without a reason")


def test_the_first_answer_stands(study):
    first = answer(study, said("Approve", by="Ada", why="fine"))
    assert answer(study, said("Approve", by="Ada", why="fine")) == first
    assert answer(study, said("Reject", by="Bob", why="no")) == first


def test_an_answer_to_a_promotion_that_does_not_wait_is_refused(tmp_path):
    study = tt.tune(write_study(tmp_path))
    tt.promote_best(study)
    with pytest.raises(AirflowFailException, match="approval: nothing waits for one"):
        answer(study, said("Approve"))


def test_an_approval_without_a_promotion_before_it_begins_with_one(spec):
    with DAG("asked", schedule=None):
        group = approval(spec)
    tasks = {task.task_id: task for task in group.iter_tasks()}
    assert isinstance(tasks["approval.propose"], PromoteBestOperator)
    assert tasks[ASK].upstream_task_ids == {"approval.propose"}
    assert tasks[PROMOTE].upstream_task_ids == {ANSWER, "approval.propose"}
