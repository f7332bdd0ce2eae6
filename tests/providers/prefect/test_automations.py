"""The two automations on a real server: whose runs they begin again, how often, and whose they leave alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.events import Event
from prefect.states import Cancelled, Cancelling, Crashed, Pending, Running

from tests.providers.prefect.healing import client, healing
from tune_tasks_prefect.automations import (
    AGAIN,
    LOST,
    MISSED,
    MOST_RUNS,
    SHUT_DOWN,
    TAG,
    automations,
    comes_back,
    settle,
)

pytestmark = pytest.mark.prefect

SILENCE = timedelta(seconds=12)
"""Ten seconds are the least that Prefect takes."""


@pytest.fixture(scope="module", autouse=True)
def settled() -> None:
    with client() as api:
        for automation in automations(SILENCE / MISSED):
            settle(api, automation)


@pytest.fixture
def begun() -> Iterator[Callable[..., UUID]]:
    """Makes a flow run of a deployment with these tags, or of none."""
    with client() as api:

        def begin(*tags: str, deployed: bool = True) -> UUID:
            flow = api.create_flow_from_name(f"flow-{uuid4().hex[:8]}")
            if not deployed:
                from prefect import flow as make

                return UUID(str(api.create_flow_run(make(lambda: None, name="bare"), tags=[*tags]).id))
            deployment = api.create_deployment(flow_id=flow, name="one", tags=[*tags], entrypoint="nowhere.py:flow")
            return UUID(str(api.create_flow_run_from_deployment(deployment).id))

        yield begin


def move(run: UUID, *states: State[Any]) -> None:
    with client() as api:
        for state in states:
            api.set_flow_run_state(run, state)


def state_of(run: UUID) -> tuple[StateType, str | None]:
    with client() as api:
        state = api.read_flow_run(run).state
    assert state is not None
    return state.type, state.name


def begun_again(run: UUID, seconds: float = 30.0) -> None:
    healing().wait_for(lambda: state_of(run) == (StateType.SCHEDULED, "AwaitingRetry"), seconds)


def stays_crashed(*runs: UUID) -> None:
    """Returns when the server has begun another run again that crashed later, and left these as they are.

    An event is evaluated after those that came before it.
    """
    with client() as api:
        flow = api.create_flow_from_name(f"flow-{uuid4().hex[:8]}")
        deployment = api.create_deployment(flow_id=flow, name="one", tags=[TAG], entrypoint="nowhere.py:flow")
        last = UUID(str(api.create_flow_run_from_deployment(deployment).id))
    move(last, Pending(), Running(), Crashed())
    begun_again(last)
    assert [state_of(run) for run in runs] == [(StateType.CRASHED, "Crashed")] * len(runs)


def test_a_run_of_ours_is_begun_again_and_those_of_others_are_left_alone(begun: Callable[..., UUID]) -> None:
    ours, foreign, script = begun(TAG, "nightly"), begun("nightly"), begun(TAG, deployed=False)
    for run in (ours, foreign, script):
        move(run, Pending(), Running(), Crashed(message="killed"))
    begun_again(ours)
    stays_crashed(foreign, script)


def test_a_run_that_always_crashes_is_begun_so_often_and_then_left(begun: Callable[..., UUID]) -> None:
    run = begun(TAG)
    for _ in range(MOST_RUNS - 1):
        move(run, Pending(), Running(), Crashed(message="always"))
        begun_again(run)
    move(run, Pending(), Running(), Crashed(message="always"))
    with client() as api:
        assert api.read_flow_run(run).run_count == MOST_RUNS
    stays_crashed(run)


def test_a_run_that_crashes_before_it_begins_does_not_go_round_for_ever(begun: Callable[..., UUID]) -> None:
    never, second = begun(TAG), begun(TAG)
    move(never, Pending(), Crashed(message="no such image"))
    move(second, Pending(), Running(), Crashed())
    begun_again(second)
    move(second, Pending(), Crashed(message="no such image"))
    stays_crashed(never, second)


def test_a_run_that_a_runner_cancelled_as_it_was_shut_down_is_begun_again_and_one_that_a_person_did_is_not(
    begun: Callable[..., UUID],
) -> None:
    ours, foreign, unwanted = begun(TAG), begun("nightly"), begun(TAG)
    for run, message in ((foreign, SHUT_DOWN), (unwanted, "I do not want it"), (ours, SHUT_DOWN)):
        move(run, Pending(), Running(), Cancelling(), Cancelled(message=message))
    begun_again(ours)
    stays_crashed()
    assert [state_of(run)[0] for run in (foreign, unwanted)] == [StateType.CANCELLED] * 2


def test_a_run_that_falls_silent_has_crashed_if_it_is_ours_and_is_begun_again(begun: Callable[..., UUID]) -> None:
    ours, foreign, done = begun(TAG), begun("nightly"), begun(TAG)
    for run, tags in ((ours, [TAG]), (foreign, ["nightly"]), (done, [TAG])):
        move(run, Pending(), Running())
        beat(run, tags)
    move(done, State(type=StateType.COMPLETED))
    begun_again(ours, seconds=60)
    with client() as api:
        history = [state.name for state in api.read_flow_run_states(ours)]
    assert history == ["Scheduled", "Pending", "Running", "Crashed", "AwaitingRetry"]
    assert state_of(foreign) == (StateType.RUNNING, "Running")
    assert state_of(done)[0] == StateType.COMPLETED


def beat(run: UUID, tags: list[str]) -> None:
    """Sends the sign of life that a flow's process sends."""
    with client() as api:
        deployment = api.read_flow_run(run).deployment_id
        related = [{"prefect.resource.id": f"prefect.deployment.{deployment}", "prefect.resource.role": "deployment"}]
        related += [{"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"} for tag in tags]
        event = Event(
            event="prefect.flow-run.heartbeat",
            resource={"prefect.resource.id": f"prefect.flow-run.{run}"},  # type: ignore[arg-type]  # as pydantic takes it
            related=related,  # type: ignore[arg-type]  # as above
        )
        api.request("POST", "/events", json=[event.model_dump(mode="json")])


@pytest.mark.parametrize(
    ("count", "tags", "back"),
    [(1, [TAG], True), (MOST_RUNS - 1, [TAG], True), (MOST_RUNS, [TAG], False), (0, [TAG], False), (1, [], False)],
)
def test_who_asks_is_told_whether_a_run_comes_back(count: int, tags: list[str], back: bool) -> None:
    assert comes_back(count, tags) is back


def test_what_a_person_has_paused_stays_paused_and_what_is_as_it_should_be_is_left() -> None:
    with client() as api:
        wanted = {one.name: one for one in automations(SILENCE / MISSED)}
        assert [settle(api, one) for one in wanted.values()] == ["found"] * 3
        [lost] = api.read_automations_by_name(LOST)
        api.pause_automation(lost.id)
        try:
            other = {one.name: one for one in automations(SILENCE)}
            assert (settle(api, other[LOST]), settle(api, other[AGAIN])) == ("changed", "found")
            [now] = api.read_automations_by_name(LOST)
            assert not now.enabled
            assert now.trigger.within == MISSED * SILENCE
        finally:
            settle(api, wanted[LOST])
            api.resume_automation(lost.id)
