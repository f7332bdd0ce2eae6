"""`python -m tune_tasks_prefect` on a real server: what it makes, finds and leaves, and what it refuses in words."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml
from prefect.states import Cancelled, Cancelling, Pending, Running

from tests.providers.prefect.healing import ROOT, client, command, healing
from tune_tasks_prefect import fitness
from tune_tasks_prefect.automations import AGAIN, LOST, TAG
from tune_tasks_prefect.deployments import listed
from tune_tasks_prefect.form import SECTIONS, generate

pytestmark = pytest.mark.prefect

FILE = ROOT / "flows" / "prefect.yaml"


@pytest.fixture(scope="module")
def first() -> str:
    """What the command says on a server on which it never ran, with the deployments that come with the project."""
    done = command("setup", "--file", str(FILE), "--gpus", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def names() -> list[str]:
    return ["tune/digits", "retrain/daily", "deliver/champion", "stop-cancelled/tune-tasks"]


def told(output: str) -> dict[str, str]:
    """What became of each thing, by its name."""
    lines = [re.split(r"\s{2,}", line) for line in output.splitlines() if re.match(r"(made|found|changed)\s", line)]
    return {name: done for done, _, name in lines}


def test_all_is_made_at_first_and_found_again(first: str, names: list[str]) -> None:
    assert {*names, "study-store", "ray-cluster", "gpus, 2 slots", "tune-tasks", AGAIN} <= set(told(first))
    again = command("setup", "--file", str(FILE), "--gpus", "2")
    assert again.returncode == 0, again.stderr
    assert set(told(again.stdout)) == set(told(first))
    assert set(told(again.stdout).values()) == {"found"}, again.stdout


def test_a_run_that_is_cancelled_and_one_that_nobody_ends_have_their_jobs_stopped(first: str, tmp_path: Path) -> None:
    """Prefect calls no hook for either; a flow does it, which is begun for ours alone."""
    [one] = [one for one in yaml.safe_load(FILE.read_text())["deployments"] if one["name"] == "tune-tasks"]
    for trigger in one["triggers"]:
        trigger["within"] = min(trigger.get("within", 0), 10)  # the least that Prefect takes
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump({"deployments": [{**one, "name": "quick"}]}))
    assert command("setup", "--file", str(file)).returncode == 0
    with client() as api:
        flow = api.create_flow_from_name(f"flow-{uuid4().hex[:8]}")
        wanted, foreign = [], []
        for tag, ids in ((TAG, wanted), ("nightly", foreign)):
            made = api.create_deployment(flow_id=flow, name=tag, tags=[tag], entrypoint="nowhere.py:flow")
            for states in ([Cancelled(message="unwanted")], [Pending(), Running(), Cancelling()]):
                run = api.create_flow_run_from_deployment(made).id
                ids.append(str(run))
                for state in states:
                    api.set_flow_run_state(run, state)

    def stopped() -> set[str]:
        rows = healing().rows("flow_runs", deployments={"name": {"any_": ["quick"]}})
        return {row["parameters"]["cancelled"] for row in rows}

    healing().wait_for(lambda: set(wanted) <= stopped(), 60)
    assert not stopped() & set(foreign)


def test_what_a_person_has_paused_or_set_stays_so(first: str) -> None:
    with client() as api:
        digits = api.read_deployment_by_name("tune/digits")
        daily = api.read_deployment_by_name("retrain/daily")
        champion = api.read_deployment_by_name("deliver/champion")
        [again] = api.read_automations_by_name(AGAIN)
        [trigger] = api.read_resource_related_automations(f"prefect.deployment.{champion.id}")
        api.pause_deployment(digits.id)
        api.update_deployment_schedule(daily.id, daily.schedules[0].id, active=False)
        api.pause_automation(again.id)
        api.pause_automation(trigger.id)
    done = command("setup", "--file", str(FILE))
    assert done.returncode == 0, done.stderr
    assert set(told(done.stdout).values()) == {"found"}, done.stdout
    with client() as api:
        assert api.read_deployment_by_name("tune/digits").paused
        assert not api.read_deployment_by_name("retrain/daily").schedules[0].active
        assert not api.read_automations_by_name(AGAIN)[0].enabled
        assert not api.read_resource_related_automations(f"prefect.deployment.{champion.id}")[0].enabled
        assert api.read_global_concurrency_limit_by_name("gpus").limit == 2
        api.resume_automation(again.id)


def test_what_is_new_in_the_file_is_changed_and_nothing_else(first: str, tmp_path: Path) -> None:
    read = yaml.safe_load(FILE.read_text())
    [digits] = [one for one in read["deployments"] if one["name"] == "digits"]
    digits["parameters"]["overrides"]["budget.trials"] = 8
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump({"pull": [], "deployments": [digits]}))
    done = command("setup", "--file", str(file), "--gpus", "4")
    assert done.returncode == 0, done.stderr
    changed = {name for name, what in told(done.stdout).items() if what != "found"}
    assert changed == {"tune/digits", "gpus, 4 slots"}
    with client() as api:
        assert api.read_deployment_by_name("tune/digits").parameters["overrides"]["budget.trials"] == 8
        assert api.read_deployment_by_name("retrain/daily").schedules


def test_a_deployment_is_refused_that_names_what_is_not_there(first: str, tmp_path: Path) -> None:
    named = {"study": "study.yaml", "limit": "tpus", "store": "none-such", "cluster": "nowhere"}
    one = {"name": "lost", "entrypoint": "tune_tasks_prefect.flows.tune", "parameters": named}
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump({"deployments": [{**one, "work_pool": {"name": "tune-tasks"}}]}))
    done = command("setup", "--file", str(file))
    assert done.returncode == 2, done.stderr
    assert "has no concurrency limit 'tpus'; make it: prefect gcl create tpus --limit NUMBER" in done.stderr
    assert (
        "no block 'none-such' of type 'study-store'; make it in the UI (prefect block create study-store)"
        in done.stderr
    )
    assert "no block 'nowhere' of type 'ray-cluster'; make it" in done.stderr
    with client() as api:
        assert not [one for one in api.read_deployments() if one.name == "lost"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("deployments: []", "must list `deployments`, each with a `name` and an `entrypoint`"),
        ("deployments: [{name: one}]", "must list `deployments`"),
        (": : :", "cannot be read"),
    ],
)
def test_a_file_that_lists_nothing_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    from tune_tasks.errors import ConfigError

    file = tmp_path / "prefect.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        listed(file)


def test_a_server_that_is_not_named_or_not_there_is_said_with_the_command_that_starts_one() -> None:
    nameless = command("check", PREFECT_API_URL="")
    assert nameless.returncode == 2
    assert "PREFECT_API_URL is not set; start a server (prefect server start)" in nameless.stderr
    away = command("check", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert away.returncode != 0
    assert "no Prefect server answers at http://127.0.0.1:9/api" in away.stderr


def test_a_fastapi_with_which_the_server_does_not_start_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitness.unfit() is None
    versions = {"fastapi": "0.165.0", "prefect": "3.8.8"}
    of = importlib.metadata.version
    monkeypatch.setattr(fitness, "version", lambda name: versions.get(name) or of(name))
    assert fitness.unfit() == (
        "fastapi 0.165.0 is installed, with which Prefect 3.8.8 starts no server; pip install 'fastapi<0.151,>=0.139.0'"
    )
    # Prefect 3.8 does not say so itself; our own bound does.
    needs = {"prefect": ["fastapi<1.0.0,>=0.139.0"]}
    said = importlib.metadata.requires
    monkeypatch.setattr(fitness, "requires", lambda name: needs.get(name) or said(name))
    assert str(fitness.unfit()).endswith("pip install 'fastapi<0.151'")


def test_the_form_is_what_the_spec_s_schema_says() -> None:
    file = ROOT / "providers" / "prefect" / "src" / "tune_tasks_prefect" / "form.json"
    assert json.loads(file.read_text()) == generate(), "write it again: python -m tune_tasks_prefect form"
    fields = generate()["properties"]
    assert {name.partition(".")[0] for name in fields} == set(SECTIONS)
    assert fields["budget.trials"] == {
        "title": "budget.trials",
        "type": "integer",
        "minimum": 1,
        "description": "configurations to try in all",
    }


def run_of(deployment: str, **parameters: Any) -> tuple[int, str]:
    """Asks the server for a run, as the UI does; its status and what it says."""
    with client() as api:
        found = api.read_deployment_by_name(deployment)
    address = f"{healing().api}/deployments/{found.id}/create_flow_run"
    answer = httpx.post(address, json={"parameters": parameters}, timeout=20)
    return answer.status_code, answer.text


@pytest.fixture
def sent() -> list[Any]:
    """The runs of `tune/digits` before; none is begun without a worker."""
    return healing().rows("flow_runs", deployments={"name": {"any_": ["digits"]}})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"budget.trials": 0}, "0 is less than the minimum of 1"),
        ({"budget.trials": "many"}, "'many' is not valid under any of the given schemas"),
        ({"budget.share": 1.5}, "1.5 is greater than the maximum of 1"),
        ({"budget.wall_time": "soon"}, "'soon' does not match '^"),
        ({"execution.runner": "slurm"}, "'slurm' is not one of ['ray', 'job', 'inline']"),
        ({"budget.trails": 8}, "'budget.trails' does not match any of the regexes"),
    ],
)
def test_a_value_that_the_spec_does_not_allow_is_refused_before_a_run_exists(
    first: str, sent: list[Any], overrides: dict[str, Any], message: str
) -> None:
    status, said = run_of("tune/digits", study="study.yaml", overrides=overrides)
    assert (status, message in json.loads(said)["detail"]) == (409, True), said
    assert len(healing().rows("flow_runs", deployments={"name": {"any_": ["digits"]}})) == len(sent)


def test_what_the_spec_allows_is_taken_and_so_are_keys_that_are_no_fields(first: str) -> None:
    overrides = {
        "budget.trials": 8,
        "budget.wall_time": "1h30m",
        "resources.memory": "4GiB",
        "resources.custom.tpu": 1,
        "space.learning_rate.high": 0.1,
        "sampler": "random",
    }
    status, said = run_of("tune/digits", study="study.yaml", overrides=overrides)
    assert status == 201, said


def test_the_automations_wait_for_the_slowest_heartbeat(first: str) -> None:
    [after] = [name for name in told(first) if name.startswith(LOST)]
    assert after.endswith("after 0:09:00")  # Prefect's own of three minutes, which others on this server may have
    quick = command("setup", "--file", str(FILE), PREFECT_FLOWS_HEARTBEAT_FREQUENCY="30")
    assert f"{LOST}, after 0:01:30" in told(quick.stdout), quick.stderr
