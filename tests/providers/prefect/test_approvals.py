"""A promotion that waits: a person answers in the form, in a shell, or not at all, and the flow run goes on."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

import tune_tasks as tt
from tests.flows.running import start
from tests.prefect_server import PrefectServer, shared
from tests.studies import write_study
from tune_tasks_prefect import apromote_best, promote_best
from tune_tasks_prefect.approvals import aapproved, approved, resume_answered

pytestmark = pytest.mark.prefect

SERVED = """
import sys
from prefect import flow
from tune_tasks_prefect import promote_best
from tune_tasks_prefect.approvals import approved

@flow
def gated(study: str) -> bool:
    return approved(promote_best(study), wait="suspend")["promoted"]

if __name__ == "__main__":
    gated.serve("suspends")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PrefectServer]:
    running = shared()
    with temporary_settings({PREFECT_API_URL: running.api, PREFECT_HOME: running.home}):
        yield running


def waiting(folder: Path, **promotion: Any) -> tt.Study:
    """A study that is done and asks a person before its model is promoted."""
    asked = {"registry": "none", "approval": "required", **promotion}
    return tt.tune(write_study(folder, budget={"trials": 2, "concurrency": 1}, promotion=asked))


class Run:
    """A flow that runs in a thread of this process, while the test does what a person would."""

    def __init__(self, server: PrefectServer, study: tt.Study, run: Callable[[str], Any]) -> None:
        self._server, self._study = server, study
        self.state: Any = None
        self._thread = threading.Thread(target=copy_context().run, args=(self._run, run), daemon=True)
        self._thread.start()

    def _run(self, run: Callable[[str], Any]) -> None:
        self.state = run(self._study.url)

    def paused(self) -> dict[str, Any]:
        """The flow run, once it waits."""
        paused = {"state": {"type": {"any_": ["PAUSED"]}}}

        def look() -> dict[str, Any] | None:
            rows = self._server.rows("flow_runs", flow_runs=paused)
            return next((row for row in rows if row["parameters"].get("study") == self._study.url), None)

        found: dict[str, Any] = self._server.wait_for(look, 60)
        return found

    def answer(self, **given: Any) -> str:
        """Fills in the form, and gives what the server said to it."""
        return answer(self.paused()["id"], **given)

    def result(self) -> Any:
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert self.state.is_completed(), self.state
        return self.state.result()


def answer(flow_run: Any, **given: Any) -> str:
    with get_client(sync_client=True) as client:
        return str(client.resume_flow_run(flow_run, run_input=given).status.value)


@flow
def gated(study: str, timeout: float | None = None) -> dict[str, Any]:
    return approved(promote_best(study), poll=0.5, timeout=timeout)


@flow
async def agated(study: str) -> dict[str, Any]:
    return await aapproved(await apromote_best(study), poll=0.5)


def form(server: PrefectServer, run: dict[str, Any], part: str) -> Any:
    """A part of what the UI builds the form from."""
    with get_client(sync_client=True) as client:
        return client.read_flow_run_input(run["id"], run["state"]["state_details"]["run_input_keyset"][part])


def test_a_person_agrees_in_the_form_with_the_leaderboard_before_their_eyes(
    server: PrefectServer, tmp_path: Path
) -> None:
    study = waiting(tmp_path)
    run = Run(server, study, lambda url: gated(url, return_state=True))
    shown = form(server, run.paused(), "description")
    assert "model" in shown
    assert "Approval: waits until" in shown
    assert "tune-tasks approve|reject" in shown
    assert study.refresh().promotions == []
    assert run.answer(agreed="yes", by="Ada", why="reads well") == "ACCEPT"
    model = run.result()
    assert model["promoted"] is True
    assert {name: model["approval"][name] for name in ("approved", "by", "why")} == {
        "approved": True,
        "by": "Ada",
        "why": "reads well",
    }


def test_an_answer_without_a_name_or_a_reason_is_refused_and_the_flow_run_waits_on(
    server: PrefectServer, tmp_path: Path
) -> None:
    run = Run(server, waiting(tmp_path), lambda url: gated(url, return_state=True))
    assert run.answer(agreed="yes", by="", why="well") == "REJECT"
    assert run.answer(agreed="yes", by="Ada", why="  ") == "REJECT"
    assert run.answer(by="Ada", why="well") == "REJECT"
    assert run.answer(agreed="perhaps", by="Ada", why="well") == "REJECT"
    assert run.answer(agreed="no", by="Ada", why="too slow") == "ACCEPT"
    model = run.result()
    assert (model["promoted"], model["pending"]) == (False, False)
    assert model["reason"] == "rejected by Ada: too slow"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_answer_in_a_shell_is_noticed_while_the_flow_run_pauses(
    server: PrefectServer, tmp_path: Path, asynchronous: bool
) -> None:
    study = waiting(tmp_path)
    run = Run(server, study, _arun if asynchronous else lambda url: gated(url, return_state=True))
    run.paused()
    tt.approve(tt.open_study(study.url), by="Grace", why="in the shell")
    model = run.result()
    assert model["promoted"] is True
    assert model["approval"]["by"] == "Grace"


def _arun(url: str) -> Any:
    import asyncio

    return asyncio.run(agated(url, return_state=True))  # type: ignore[call-overload]


def test_where_nobody_answers_in_time_the_promotion_stays_pending_and_the_flow_run_ends_well(
    server: PrefectServer, tmp_path: Path
) -> None:
    study = waiting(tmp_path)
    run = Run(server, study, lambda url: gated(url, timeout=1.0, return_state=True))
    model = run.result()
    assert (model["promoted"], model["pending"]) == (False, True)
    tt.approve(study, by="Ada", why="later")
    assert tt.promote_best(study).promoted


def test_a_promotion_that_expires_while_the_flow_run_pauses_is_recorded_as_such(
    server: PrefectServer, tmp_path: Path
) -> None:
    study = waiting(tmp_path, approval_time=3)
    model = Run(server, study, lambda url: gated(url, return_state=True)).result()
    assert (model["promoted"], model["pending"]) == (False, False)
    assert model["reason"].startswith("nobody agreed until")


def test_a_promotion_that_waits_for_nobody_asks_nobody(server: PrefectServer, tmp_path: Path) -> None:
    begun = time.time()
    study = waiting(tmp_path, approval="none")
    state = gated(study.url, return_state=True)
    assert state.result()["promoted"] is True
    assert state.timestamp.timestamp() > begun
    again = gated(study.url)
    assert again == state.result()


def test_a_flow_run_of_no_deployment_cannot_be_suspended_and_is_told_what_to_do(
    server: PrefectServer, tmp_path: Path
) -> None:
    study = waiting(tmp_path)

    @flow
    def suspends() -> Any:
        return approved(promote_best(study.url), wait="suspend")

    with pytest.raises(tt.ConfigError, match="say wait='pause'"):
        suspends()
    with pytest.raises(tt.ConfigError, match="in a flow run only"):
        approved(tt.promote_best(study).model_dump(mode="json"))


def test_a_suspended_flow_run_ends_its_process_and_goes_on_with_the_answer_wherever_that_was_given(
    server: PrefectServer, tmp_path: Path
) -> None:
    studies = {how: waiting(tmp_path / how) for how in ("form", "shell", "gone")}
    (tmp_path / "served.py").write_text(SERVED)
    serving = start(str(tmp_path / "served.py"), cwd=tmp_path, PREFECT_RUNNER_POLL_FREQUENCY="1")
    found: dict[str, str] = {}

    def is_in(flow_run: str, state: str) -> Callable[[], bool]:
        return lambda: server.rows("flow_runs", flow_runs={"id": {"any_": [flow_run]}})[0]["state_name"] == state

    try:
        named = {"name": {"any_": ["suspends"]}}
        [deployment] = server.wait_for(lambda: server.rows("deployments", deployments=named), 60)
        with get_client(sync_client=True) as client:
            for how, study in studies.items():
                made = client.create_flow_run_from_deployment(deployment["id"], parameters={"study": study.url})
                found[how] = str(made.id)
        for flow_run in found.values():
            server.wait_for(is_in(flow_run, "Suspended"), 90)
        assert resume_answered() == []
        assert answer(found["form"], agreed="yes", by="Ada", why="in the form") == "ACCEPT"
        tt.reject(tt.open_study(studies["shell"].url), by="Grace", why="in the shell")
        shutil.rmtree(studies["gone"].url)
        assert resume_answered() == [found["shell"]]
        for how in ("form", "shell"):
            server.wait_for(is_in(found[how], "Completed"), 90)
        assert is_in(found["gone"], "Suspended")()
    finally:
        serving.terminate()
        serving.wait(30)
    [model] = studies["form"].refresh().promotions
    assert model["approval"]["by"] == "Ada"
    [model] = studies["shell"].refresh().promotions
    assert model["reason"] == "rejected by Grace: in the shell"
