"""A promotion is told as an asset and an event; told twice, it triggers what follows once."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from prefect import flow, task
from prefect.assets import Asset
from prefect.automations import Automation
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.cache_policies import NO_CACHE
from prefect.events import EventTrigger, ResourceSpecification
from prefect.events.actions import SendNotification
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

import tune_tasks as tt
from tests.flows.running import start
from tests.prefect_server import PrefectServer, shared
from tests.studies import write_study
from tune_tasks_prefect.announcing import PROMOTED, TOLD, announce, asset_of, resource_of, trained

pytestmark = pytest.mark.prefect

FOLLOWS = """
import sys
from prefect import flow
from prefect.events import DeploymentEventTrigger
from tune_tasks_prefect.announcing import PROMOTED, resource_of

@flow
def follows(study: str) -> str:
    return study

if __name__ == "__main__":
    trigger = DeploymentEventTrigger(
        expect={PROMOTED},
        match={"prefect.resource.id": resource_of(sys.argv[1])},
        parameters={"study": "{{ event.payload.study }}"},
    )
    follows.serve(sys.argv[1], triggers=[trigger])
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PrefectServer]:
    running = shared()
    with temporary_settings({PREFECT_API_URL: running.api, PREFECT_HOME: running.home}):
        yield running


@task(cache_policy=NO_CACHE)
def told(study: tt.Study, model: dict[str, Any], times: int) -> None:
    for _ in range(times):
        announce(study, model)


@flow
def telling(study: tt.Study, model: dict[str, Any], times: int) -> None:
    told(study, model, times)


def promoted(folder: Path, model: str, **changes: Any) -> tuple[tt.Study, dict[str, Any]]:
    """A study whose model was promoted under this name, and the result of that step."""
    study = tt.tune(write_study(folder, promotion={"registry": "none", "model": model}, **changes))
    return study, tt.promote_best(study).model_dump(mode="json")


def stored(server: PrefectServer, event: str, resource: str) -> list[dict[str, Any]]:
    wanted = {"event": {"name": [event]}, "resource": {"id": [resource]}}
    return list(server.rows("events", filter=wanted)["events"])  # type: ignore[call-overload]


def test_a_promotion_is_an_event_and_an_asset_with_what_the_manifest_says(
    server: PrefectServer, tmp_path: Path
) -> None:
    name = f"model-{uuid4().hex[:8]}"
    study, model = promoted(tmp_path, name)
    state = telling(study, model, 1, return_state=True)
    assert state.is_completed(), state
    [event] = server.wait_for(lambda: stored(server, PROMOTED, resource_of(name)))
    expected = {key: model[key] for key in TOLD}
    assert event["payload"] == expected
    assert expected["study"] == study.url
    assert event["resource"]["prefect.resource.name"] == name
    assert event["resource"]["tune-tasks.trained"] == "search"
    related = {each["prefect.resource.id"] for each in event["related"]}
    assert {f"models://{name}@champion", f"prefect.flow-run.{state.state_details.flow_run_id}"} <= related
    succeeded = "prefect.asset.materialization.succeeded"
    [asset] = server.wait_for(lambda: stored(server, succeeded, f"models://{name}@champion"))
    assert asset["payload"] == expected
    assert asset["resource"]["prefect.resource.name"] == f"{name} champion"


def test_a_model_that_is_not_promoted_is_not_told_of_and_nothing_is_outside_a_run(
    server: PrefectServer, tmp_path: Path
) -> None:
    name = f"model-{uuid4().hex[:8]}"
    study, model = promoted(tmp_path, name)
    announce(study, model)
    telling(study, {**model, "promoted": False}, 1)
    other, last = promoted(tmp_path / "last", f"{name}-last")
    telling(other, last, 1)  # events are stored in the order in which they were told
    server.wait_for(lambda: stored(server, PROMOTED, resource_of(f"{name}-last")))
    assert stored(server, PROMOTED, resource_of(name)) == []


def test_a_promotion_that_is_told_again_triggers_the_deployment_that_follows_once(
    server: PrefectServer, tmp_path: Path
) -> None:
    name = f"model-{uuid4().hex[:8]}"
    study, model = promoted(tmp_path / "first", name)
    (tmp_path / "follows.py").write_text(FOLLOWS)
    serving = start(str(tmp_path / "follows.py"), name, cwd=tmp_path, PREFECT_RUNNER_POLL_FREQUENCY="1")

    def runs() -> list[dict[str, Any]]:
        rows = server.rows("flow_runs", deployments={"name": {"any_": [name]}})
        return [row for row in rows if row["state_type"] == "COMPLETED"]

    try:
        server.wait_for(lambda: server.rows("deployments", deployments={"name": {"any_": [name]}}), 60)
        telling(study, model, 2)
        telling(study, model, 1)  # another flow run of the same promotion, as a repeated one is
        server.wait_for(runs, 60)
        next_study, next_model = promoted(tmp_path / "second", name, name="next")
        telling(next_study, next_model, 1)
        server.wait_for(lambda: len(runs()) >= 2, 60)
        found = sorted(row["parameters"]["study"] for row in runs())
    finally:
        serving.terminate()
        serving.wait(30)
    assert found == sorted([study.url, next_study.url])
    assert len(stored(server, PROMOTED, resource_of(name))) == 2


class Channel(BaseHTTPRequestHandler):
    """What takes the messages of a team."""

    got: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        Channel.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *said: Any) -> None:
        """Says nothing of each request."""


def test_a_notification_of_prefect_s_own_tells_the_team_of_the_new_champion(
    server: PrefectServer, tmp_path: Path
) -> None:
    name = f"model-{uuid4().hex[:8]}"
    study, model = promoted(tmp_path, name)
    channel = ThreadingHTTPServer(("127.0.0.1", 0), Channel)
    threading.Thread(target=channel.serve_forever, daemon=True).start()
    block = CustomWebhookNotificationBlock(
        name="team",
        url=f"http://127.0.0.1:{channel.server_port}/",
        json_data={"title": "{{subject}}", "text": "{{body}}"},
    )
    told_by = SendNotification(
        block_document_id=block.save(name),
        subject="{{ event.resource.name }} has a new {{ event.payload.alias }}",
        body="{{ event.payload.metric }} {{ event.payload.value }}: {{ event.payload.study }}",
    )
    trigger = EventTrigger(expect={PROMOTED}, match=ResourceSpecification({"prefect.resource.id": resource_of(name)}))
    made = Automation(name=name, trigger=trigger, actions=[told_by]).create()
    try:
        telling(study, model, 1)
        [message] = server.wait_for(lambda: Channel.got, 30)
    finally:
        made.disable()
        channel.shutdown()
    assert message == {"title": f"{name} has a new champion", "text": f"loss {model['value']}: {study.url}"}


def test_a_promotion_that_cannot_be_told_is_a_line_in_the_log(
    server: PrefectServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study, model = promoted(tmp_path, f"model-{uuid4().hex[:8]}")

    @flow
    def too_much() -> None:
        announce(study, {**model, "uri": "postgresql://ada:hush@" + "x" * 3_000_000})

    with caplog.at_level(logging.WARNING):
        assert too_much(return_state=True).is_completed()
    assert "The promotion was not announced: EventTooLarge" in caplog.text
    assert "hush" not in caplog.text


def test_an_asset_has_a_key_that_prefect_allows_whatever_the_model_is_called() -> None:
    key = asset_of({"name": "main.models/Ä digits & <b>", "alias": "champion"})
    assert Asset(key=key).key == "models://main.models/-digits-b-@champion"


def test_a_final_training_is_told_apart_from_a_search() -> None:
    assert trained(SimpleNamespace(spec=SimpleNamespace(final=None))) == "search"  # type: ignore[arg-type]
    of = SimpleNamespace(spec=SimpleNamespace(final=SimpleNamespace(of="digits")))
    assert trained(of) == "final"  # type: ignore[arg-type]
