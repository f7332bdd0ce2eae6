"""The automations by which a deployment of ours goes on after its process was ended, and how often it may.

By itself a killed run stays RUNNING for ever, a crashed one stays crashed, and one whose runner is shut down counts as
cancelled. The automations look only at runs of a deployment that has the tag `TAG`, so that no other flow on the server
is touched. A run is begun again after a crash only where it had begun since the last one, and at most `MOST_RUNS` times
in all: the server counts how often it was RUNNING. So a crash that is told twice begins nothing twice, and a run that
cannot even begin does not go round for ever. This module must not decide what a run that is begun again does.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore, EventTrigger

TAG = "tune-tasks"
"""A deployment with this tag is healed; the runs of others are left alone."""
MOST_RUNS = 5
"""Times that a flow run may have been RUNNING: after the crash of the last one it stays crashed."""
MISSED = 3
"""Heartbeats that a run may miss before it counts as crashed."""

LOST = "tune-tasks: a run without heartbeats has crashed"
AGAIN = "tune-tasks: a run that crashed is begun again"
SHUT = "tune-tasks: a run whose runner was shut down is begun again"
SHUT_DOWN = "Runner is shutting down."
"""What Prefect says of the runs that a runner cancels itself when it gets a SIGTERM."""
_LONGEST = timedelta(days=30)
"""That a run may last from its start to a crash that it is begun again after."""

Done: TypeAlias = Literal["made", "found", "changed"]


def comes_back(run_count: int, tags: list[str]) -> bool:
    """Whether a run of a deployment, with this count and these tags, is begun again if it crashes while RUNNING."""
    return TAG in tags and 0 < run_count < MOST_RUNS


def automations(heartbeat: timedelta) -> list[AutomationCore]:
    """All of them, for runs that give a sign of life at least once in the time of `heartbeat`."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore

    crash = ChangeFlowRunState(
        state=StateType.CRASHED, message=f"No heartbeat for {MISSED * heartbeat}: its process is taken for killed"
    )
    begin = ChangeFlowRunState(
        state=StateType.SCHEDULED, name="AwaitingRetry", message="Its process was ended; the study goes on"
    )
    about = f"Of deployments with the tag {TAG}. Made by `python -m tune_tasks_prefect setup`."
    lost, again, shut = _triggers(MISSED * heartbeat)
    return [
        AutomationCore(name=LOST, description=about, trigger=lost, actions=[crash]),
        AutomationCore(name=AGAIN, description=about, trigger=again, actions=[begin]),
        AutomationCore(name=SHUT, description=about, trigger=shut, actions=[begin]),
    ]


def _triggers(silence: timedelta) -> tuple[EventTrigger, EventTrigger, EventTrigger]:
    """A run of ours that was silent for so long, one that crashed, and one whose runner was shut down."""
    from prefect.events.schemas.automations import EventTrigger, Posture

    of_ours: dict[str, Any] = {
        "match_related": [
            {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"},
            {"prefect.resource.role": "deployment"},
        ],
        "for_each": {"prefect.resource.id"},
        "threshold": 1,
    }
    few = {"prefect.run-count": [str(count) for count in range(MOST_RUNS)]}
    lost = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.*"},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        posture=Posture.Proactive,
        within=silence,
        **of_ours,
    )
    again = EventTrigger(
        after={"prefect.flow-run.Running", "prefect.flow-run.Retrying", "prefect.flow-run.Rerunning"},
        expect={"prefect.flow-run.Crashed"},
        match={"prefect.resource.id": "prefect.flow-run.*", **few},
        posture=Posture.Reactive,
        within=_LONGEST,
        **of_ours,
    )
    shut = EventTrigger(
        expect={"prefect.flow-run.Cancelled"},
        match={"prefect.resource.id": "prefect.flow-run.*", "prefect.state-message": SHUT_DOWN, **few},
        posture=Posture.Reactive,
        **of_ours,
    )
    return lost, again, shut


def settle(client: SyncPrefectClient, wanted: AutomationCore) -> Done:
    """Sees to it that the server has an automation, by its name; one that a person has paused stays paused."""
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        return "made"
    if content(found[0]) == content(wanted):
        return "found"
    client.update_automation(found[0].id, wanted.model_copy(update={"enabled": found[0].enabled}))
    return "changed"


def content(automation: AutomationCore) -> dict[str, Any]:
    """What an automation does, however the server numbers and sorts its parts."""
    told = automation.model_dump(mode="json", include={"name", "description", "trigger", "actions"})
    return {name: _settled(part) for name, part in told.items()}


def _settled(value: Any) -> Any:
    match value:
        case dict():
            return {name: _settled(part) for name, part in value.items() if name != "id"}
        case list():
            return sorted((_settled(part) for part in value), key=lambda part: json.dumps(part, sort_keys=True))
        case _:
            return value
