"""What a person sees in Prefect's own UI, in a real browser: the artifacts, the form of an approval, and the asset."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

import tests.prefect_server as servers
from tests.flows.browser import Page, browsing, chromium
from tests.prefect_server import PrefectServer
from tests.providers.prefect.test_announcing import promoted, stored, telling
from tests.providers.prefect.test_approvals import Run, gated, waiting
from tests.providers.prefect.test_showing import artifacts, tuned
from tests.studies import write_study
from tune_tasks.studies import open_study
from tune_tasks_prefect.announcing import PROMOTED, resource_of
from tune_tasks_prefect.showing import key_of

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(400)]

UI = Path(str(find_spec("prefect.server").submodule_search_locations[0])) / "ui"  # type: ignore[union-attr,index]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server with its UI, whose pages are built in its own home."""
    if not (UI / "index.html").exists():
        pytest.skip("this Prefect was installed without its UI")
    home, port = tmp_path_factory.mktemp("ui"), servers._free_port()
    api = f"http://127.0.0.1:{port}/api"
    pages = {"PREFECT_UI_STATIC_DIRECTORY": str(home / "pages"), "PREFECT_UI_API_URL": api}
    environment = {**servers._environment(home), **pages}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=subprocess.STDOUT)
    try:
        servers._wait_until_healthy(process, api, home / "server.log")
        _let_go()
        with temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: home}):
            yield PrefectServer(api, home)
    finally:
        _let_go()
        process.terminate()
        process.wait(20)


def _let_go() -> None:
    """Has what sends events and logs connect anew: each is made once in a process, for the server of that moment."""
    EventsWorker.drain_all(timeout=10)
    APILogWorker.drain_all(timeout=10)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    if chromium() is None:
        pytest.skip("there is no Chromium here")
    with browsing() as page:
        yield page


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where they go: PICTURES names a folder for who wants to look at them."""
    return Path(os.environ.get("PICTURES", tmp_path))


def address(server: PrefectServer, path: str) -> str:
    return f"{server.api.removesuffix('/api')}/{path}"


def test_the_artifacts_of_a_flow_run_are_drawn(
    server: PrefectServer, page: Page, tmp_path: Path, pictures: Path
) -> None:
    state = tuned(str(write_study(tmp_path)), return_state=True)
    study = open_study(state.result())
    page.open(address(server, f"runs/flow-run/{state.state_details.flow_run_id}?tab=Artifacts"), "Artifacts")
    page.click("Artifacts")
    page.wait("small: loss")
    page.shoot(pictures / "flow-run.png")
    found: dict[str, list[dict[str, Any]]] = artifacts(server, study)
    shown = {
        "progress": ("small: loss", "9 of 9 trials"),
        "leaderboard": ("parameters", "The 9 best", "why"),
        "report": ("What each round decided", "main-0000", "Promotion", "is the champion"),
    }
    for what, texts in shown.items():
        page.open(address(server, f"artifacts/artifact/{found[what][0]['id']}"), *texts)
        page.shoot(pictures / f"{what}.png")
    page.open(address(server, f"artifacts/key/{key_of(study, 'report')}"), "small: loss", "Created")
    page.shoot(pictures / "history.png")


def test_the_form_shows_the_leaderboard_and_takes_an_answer(
    server: PrefectServer, page: Page, tmp_path: Path, pictures: Path
) -> None:
    run = Run(server, waiting(tmp_path), lambda url: gated(url, return_state=True))
    paused = run.paused()
    page.open(address(server, f"runs/flow-run/{paused['id']}"), "Resume")
    page.click("Resume")
    page.wait("Make it the champion", "The reason, for the study's log.", "model")
    page.shoot(pictures / "form.png")
    page.fill("Ada", "reads well")
    page.click("Submit")
    page.wait("Resume Flow Run", "required")  # who has not chosen has neither agreed nor refused
    page.shoot(pictures / "form-incomplete.png")
    page.choose("yes")
    page.click("Submit")
    model = run.result()
    assert model["promoted"]
    assert (model["approval"]["by"], model["approval"]["why"]) == ("Ada", "reads well")


def test_the_asset_of_a_model_is_in_the_feed_of_events(
    server: PrefectServer, page: Page, tmp_path: Path, pictures: Path
) -> None:
    study, model = promoted(tmp_path, "digits")
    telling(study, model, 1)
    succeeded = "prefect.asset.materialization.succeeded"
    [asset] = server.wait_for(lambda: stored(server, succeeded, "models://digits@champion"))
    path = f"events/event/{asset['occurred'][:10]}/{asset['id']}"
    page.open(address(server, path), "models://digits@champion", "digits champion")
    page.shoot(pictures / "asset.png")
    [event] = server.wait_for(lambda: stored(server, PROMOTED, resource_of("digits")))
    page.open(address(server, f"events/event/{event['occurred'][:10]}/{event['id']}"), PROMOTED)
    page.shoot(pictures / "event.png")
