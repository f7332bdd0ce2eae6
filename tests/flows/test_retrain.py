"""The retraining flow, made small, over four days; then both its deployments, with the event and without it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

import tune_tasks as tt
from tests.flows.running import finish, start
from tests.prefect_server import PrefectServer, shared

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(400)]

DAYS = """
import json, sys
sys.path.insert(0, "flows")
from retrain import retrain
for day in json.loads(sys.argv[1]):
    state = retrain(**day, return_state=True)
    result = state.result(raise_on_failure=False)
    print("DAY", json.dumps({"state": state.name, "said": state.message, "result": result}, default=str))
"""

SERVE = """
import json, sys
sys.path.insert(0, "flows")
from prefect import serve
from retrain import deployments
serve(*deployments(**json.loads(sys.argv[1])))
"""


def small(folder: Path) -> dict[str, Any]:
    """Parameters with which a day takes seconds."""
    return {
        "name": "few-digits",
        "store": str(folder / "studies"),
        "least_accuracy": 0.5,
        "overrides": {"scheduler.max_budget": 3, "execution.runner": "inline", "promotion.registry": "none"},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("retrain")


@pytest.fixture(scope="module")
def days(folder: Path) -> list[dict[str, Any]]:
    """Monday, Tuesday with Monday's data, Wednesday with drifted data, Thursday with a model that falls short."""
    target = {"name": "folder", "url": str(folder / "deployed")}
    given = {**small(folder), "trials": 4, "target": target}
    days = [
        {**given, "data": "monday"},
        {**given, "data": "monday"},
        {**given, "data": "drifted"},
        {**given, "data": "thursday", "least_accuracy": 1.0},
    ]
    printed = finish(start("-c", DAYS, json.dumps(days)), 300)
    return [json.loads(line.removeprefix("DAY ")) for line in printed.splitlines() if line.startswith("DAY ")]


def search(folder: Path, data: str) -> tt.Study:
    """The search that was begun with this data."""
    urls = [path for path in (folder / "studies").glob("few-digits-*") if not path.name.endswith("-final")]
    [found] = [study for url in urls if (study := tt.open_study(str(url))).spec.data == data]
    return found


def final(study: tt.Study) -> tt.Study:
    return tt.open_study(f"{study.url}-final")


def pointer(folder: Path) -> Any:
    """What is deployed by now."""
    return json.loads((folder / "deployed" / "digits-mlp" / "current.json").read_text())


def deploys(study: tt.Study) -> list[dict[str, Any]]:
    """What was brought to the target of a search, or of its final training where that was promoted."""
    steps = [*study.refresh().steps.items(), *final(study).state.steps.items()]
    return [step for key, step in steps if "/deploy/" in key and step.get("changed")]


def test_a_day_goes_from_its_data_to_a_model_that_is_deployed_and_measured(days, folder):
    monday = days[0]
    assert monday["state"] == "Completed"
    assert monday["result"]["accuracy"] > 0.5
    study = search(folder, "monday")
    assert study.state.done
    assert study.state.pipeline == final(study).state.pipeline == "prefect/digits"
    assert study.state.promotions[-1]["promoted"]
    assert final(study).state.promotions[-1]["promoted"]
    assert [step["deployed"] for step in deploys(study)] == [True]


def test_a_day_with_the_data_of_the_day_before_is_skipped(days):
    tuesday = days[1]
    assert tuesday["state"] == "Skipped"
    assert "the data is 'monday' still" in tuesday["said"]


def test_drifted_data_is_tuned_from_the_best_so_far_and_its_model_takes_over(days, folder):
    wednesday = days[2]
    assert wednesday["state"] == "Completed"
    monday, drifted = search(folder, "monday"), search(folder, "drifted")
    assert drifted.trials[0].reason.startswith(f"from trial {monday.best.number} of few-digits-")
    [deployed] = deploys(drifted)
    assert deployed["previous"] == deploys(monday)[0]["version"]


def test_a_model_that_falls_short_goes_and_the_one_before_is_champion_and_deployed_again(days, folder):
    thursday = days[3]
    assert thursday["state"] == "Failed"
    drifted, failed = search(folder, "drifted"), search(folder, "thursday")
    earlier = deploys(drifted)[0]["version"]
    assert f"the champion is version {earlier} again" in thursday["result"]
    last = tt.history(failed)[-1]
    assert (last.by, last.version) == ("rollback", earlier)
    assert "of the digits, 100.0% are asked for" in last.why
    assert pointer(folder)["version"] == earlier


@pytest.fixture(scope="module")
def server() -> Iterator[PrefectServer]:
    running = shared()
    with temporary_settings({PREFECT_API_URL: running.api, PREFECT_HOME: running.home}):
        yield running


@pytest.fixture(scope="module")
def served(server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """Both deployments in a process of their own; the folder of what they make, and their ids by name."""
    folder = tmp_path_factory.mktemp("served")
    serving = start("-c", SERVE, json.dumps(small(folder)), PREFECT_RUNNER_POLL_FREQUENCY="1")
    names = ["daily", "champion"]

    def both() -> dict[str, str] | None:
        rows = server.rows("deployments", deployments={"name": {"any_": names}})
        found = {row["name"]: row["id"] for row in rows if row["parameters"].get("store") == str(folder / "studies")}
        return found if set(found) == set(names) else None

    try:
        yield folder, server.wait_for(both, 60)
    finally:
        serving.terminate()
        try:
            serving.wait(30)
        except subprocess.TimeoutExpired:
            serving.kill()


def begin(deployment: str, **parameters: Any) -> str:
    with get_client(sync_client=True) as client:
        return str(client.create_flow_run_from_deployment(deployment, parameters=parameters).id)


def ended(server: PrefectServer, flow_run: str) -> dict[str, Any]:
    """A flow run, when it is over."""
    over = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

    def look() -> dict[str, Any] | None:
        [row] = server.rows("flow_runs", flow_runs={"id": {"any_": [flow_run]}})
        return row if row["state_type"] in over else None

    found: dict[str, Any] = server.wait_for(look, 120)
    return found


def delivered(server: PrefectServer, deployment: str) -> list[dict[str, Any]]:
    """The runs of `deliver/champion` that are over, and were not those of its schedule."""
    rows = server.rows("flow_runs", deployments={"id": {"any_": [deployment]}}, sort="START_TIME_ASC")
    return [row for row in rows if row["state_type"] == "COMPLETED"]


def test_a_promotion_triggers_its_delivery_once_and_a_look_afterwards_finds_it_done(served, server):
    folder, ids = served
    target = {"name": "folder", "url": str(folder / "deployed")}
    row = ended(server, begin(ids["daily"], data="monday", trials=4, target=target))
    assert row["state_name"] == "Completed", row["state"]["message"]
    [run] = server.wait_for(lambda: delivered(server, ids["champion"]), 120)
    assert run["created_by"]["type"] == "AUTOMATION"
    study = search(folder, "monday")
    [deployed] = deploys(study)
    assert pointer(folder)["version"] == deployed["version"]

    assert ended(server, begin(ids["champion"]))["state_name"] == "Completed"
    assert len(deploys(study)) == 1


def test_a_promotion_whose_event_is_lost_is_delivered_by_the_next_look_and_only_once(served, server):
    folder, ids = served
    target = {"name": "folder", "url": str(folder / "deployed")}
    with get_client(sync_client=True) as client:
        [trigger] = client.read_resource_related_automations(f"prefect.deployment.{ids['champion']}")
        client.pause_automation(trigger.id)
    before = len(delivered(server, ids["champion"]))
    assert ended(server, begin(ids["daily"], data="drifted", trials=4, target=target))["state_name"] == "Completed"
    drifted = search(folder, "drifted")
    assert drifted.state.promotions[-1]["promoted"]
    assert not (folder / "studies" / f"{drifted.spec.name}-final").exists()
    assert len(delivered(server, ids["champion"])) == before

    for _ in range(2):
        assert ended(server, begin(ids["champion"]))["state_name"] == "Completed"
    [deployed] = deploys(drifted)
    assert deployed["previous"] is not None
    assert pointer(folder)["version"] == deployed["version"]
