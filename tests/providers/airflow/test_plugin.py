"""The pages of studies in Airflow, asked for in Airflow's own application: who gets in, what is shown, and how."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import pytest
from airflow import plugins_manager, settings
from airflow.api_fastapi.app import create_app, get_auth_manager, purge_cached_app
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

import tune_tasks as tt
from tests.airflow_home import migrate, run
from tests.studies import write_study
from tune_tasks.errors import TuneError
from tune_tasks_airflow.confined import ELSEWHERE, NOTHING
from tune_tasks_airflow.plugin import TunePlugin

EVIL = "<script>alert(1)</script>"
RAISE = f"    if context.trial == 1:\n        raise ValueError({EVIL!r})\n"
LAUNCH = "tune.round_0.launch_trials"


@dataclass(frozen=True)
class Told:
    """A DAG run whose tasks told of a study, and that study's folder."""

    run_id: str
    study: Path

    def page(self, task: str = "", index: str = "") -> str:
        """The address of its page."""
        about = f"{f'&task_id={task}' if task else ''}{f'&map_index={index}' if index else ''}"
        return f"/tune/dags/once/study?run_id={quote(self.run_id, safe='')}{about}"


class Scripts(HTMLParser):
    """Notes the elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags += [tag, *(name for name, _ in attrs if name.startswith("on"))]


@pytest.fixture(scope="module")
def app() -> Iterator[Any]:
    """Airflow's application with the plugins of its providers."""
    caches = (plugins_manager._get_plugins, plugins_manager.get_fastapi_plugins, plugins_manager._get_ui_plugins)
    migrate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "LAZY_LOAD_PROVIDERS", False)
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", secrets.token_hex(64))
        for each in caches:
            each.cache_clear()
        yield create_app(apps="core")
    for each in caches:
        each.cache_clear()
    purge_cached_app()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A study with a parameter and an error that would be scripts, in a store of its own."""
    folder = tmp_path_factory.mktemp("told")
    space = {"x": {"type": "float", "low": 0.0, "high": 1.0}, "kind": {"type": "categorical", "choices": [EVIL, "n"]}}
    spec = write_study(folder, space=space)
    objective = folder / "objective.py"
    source, context = objective.read_text(), "    context = tt.get_context()\n"
    assert context in source
    objective.write_text(source.replace(context, context + RAISE))
    done = run("tests", "once", {"spec": str(spec)})
    assert set(done.states.values()) == {"success"}
    return Told(done.id, folder / "studies" / "small")


@pytest.fixture(autouse=True)
def _listed(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__TUNE_TASKS__STORES", f"s3://elsewhere , {told.study.parent}/")


def browser(app: Any, role: str | None = "VIEWER") -> TestClient:
    """A browser in which someone is logged in."""
    token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="ann", role=role))
    return TestClient(app, cookies={"_token": token}, raise_server_exceptions=False)


def at(url: Any) -> str:
    """The address of the page of any study."""
    return f"/tune/study?url={quote(str(url), safe='')}"


def test_nobody_gets_in_without_airflows_login(app, told):
    stranger = TestClient(app, cookies={"_token": "forged"}), TestClient(app)
    for path in ("/tune/", at(told.study), told.page(), told.page(LAUNCH)):
        forged, none = (each.get(path) for each in stranger)
        assert (forged.status_code, none.status_code) == (403, 401)
        assert "Log in to Airflow" in none.text
        assert "small" not in forged.text + none.text


def test_there_is_no_route_that_does_not_ask_for_the_login():
    from airflow.api_fastapi.core_api.security import get_user

    from tune_tasks_airflow.pages import app as pages

    assert {route.path for route in pages.routes} == {"/", "/study", "/dags/{dag_id}/study"}
    for route in pages.routes:
        assert isinstance(route, APIRoute)
        assert get_user in {each.call for each in route.dependant.dependencies}
        assert route.methods == {"GET"}


def test_a_browser_that_is_logged_in_sees_the_study_of_a_task_and_of_a_run(app, told):
    client = browser(app)
    bearer = {"Authorization": f"Bearer {client.cookies['_token']}"}
    pages = [
        client.get(told.page(LAUNCH)),
        client.get(told.page(LAUNCH, "-1")),
        client.get(told.page(LAUNCH, "{MAP_INDEX}")),
        client.get(told.page()),
        client.get(at(told.study)),
        TestClient(app).get(told.page(), headers=bearer),
    ]
    assert {page.status_code for page in pages} == {200}
    assert len({page.text for page in pages}) == 1
    assert "<h1>small</h1>" in pages[0].text
    assert "What was tried, pruned and why" in pages[0].text


def test_a_run_with_a_study_for_each_region_lists_them_and_a_mapped_task_has_its_own(app, told, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__TUNE_TASKS__STORES", str(tmp_path))
    done = run("tests", "regions", {"spec": str(write_study(tmp_path)), "regions": ["eu", "us"]})
    client, page = browser(app), f"/tune/dags/regions/study?run_id={quote(done.id, safe='')}"
    listed = client.get(page)
    links = re.findall(r'href="([^"]+)">(\w+)</a>', listed.text)
    assert sorted(name for _, name in links) == ["eu", "us"]
    for link, name in links:
        assert f"<h1>{name}</h1>" in client.get(urljoin(page, unescape(link))).text
    for index, name in enumerate(["eu", "us"]):
        assert f"<h1>{name}</h1>" in client.get(f"{page}&task_id=search&map_index={index}").text
    assert client.get(f"{page}&task_id=search&map_index=--1").text.count("<td><a ") == 2


def test_who_may_not_read_the_dag_sees_none_of_its_studies(app, told, monkeypatch):
    nobody = browser(app, role=None)
    assert {nobody.get(path).status_code for path in (told.page(), told.page(LAUNCH), at(told.study))} == {403}
    assert "small" not in nobody.get("/tune/").text
    client = browser(app)
    asked: list[str | None] = []

    def readable(*, details=None, **_):
        asked.append(details and details.id)
        return False

    monkeypatch.setattr(get_auth_manager(), "is_authorized_dag", readable)
    assert client.get(told.page(LAUNCH)).status_code == 403
    assert client.get(told.page(LAUNCH) + "&dag_id=another").status_code == 403
    assert asked == ["once", "once"]
    assert "small" not in client.get("/tune/").text


def test_the_url_of_a_study_is_only_taken_from_who_may_see_the_pages_of_plugins(app, told, monkeypatch):
    client = browser(app)
    monkeypatch.setattr(get_auth_manager(), "is_authorized_view", lambda **_: False)
    assert client.get(at(told.study)).status_code == 403
    assert client.get(told.page()).status_code == 200


def test_the_list_has_each_study_once_with_a_link_to_its_page(app, told):
    page = browser(app).get("/tune/").text
    assert page.count(f"<td>{told.study}</td>") == 1
    (link,) = re.findall(rf'<a href="(dags/[^"]+)">small</a></td><td>{told.study}</td>', page)
    assert browser(app).get(f"/tune/{unescape(link)}").status_code == 200


def test_what_users_write_is_escaped_and_nothing_could_run_if_it_were_not(app, told):
    answer = browser(app).get(told.page())
    assert answer.text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2, "as a parameter and as an error"
    assert {"script", "img", "iframe", "onerror", "onload"}.isdisjoint(Scripts(answer.text).tags)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "script-src" not in policy
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        f"/tune/{EVIL}",
        f"/tune/study?url={EVIL}",
        f"/tune/study?{EVIL}=1",
        f"/tune/study?url=s3://{EVIL}@host/a%3Fb",
        f"/tune/dags/{EVIL}/study?run_id={EVIL}&task_id={EVIL}&map_index={EVIL}",
        f"/tune/dags/once/study?{EVIL}=1",
    ],
)
def test_what_an_address_says_is_escaped_too(app, path):
    answer = browser(app).get(path)
    assert answer.status_code in {400, 403, 404}
    assert answer.headers["content-type"].startswith("text/html")
    assert "script" not in Scripts(answer.text).tags
    assert "<h1>No study to show</h1>" in answer.text


def test_a_study_elsewhere_is_not_shown_however_its_url_is_written(app, told, tmp_path):
    """The one beside the store has the same begin in its name; the link leads out of the store."""
    spec = write_study(tmp_path)
    other = Path(tt.open_study(spec).url)
    beside = told.study.parent.with_name("studies-of-others")
    (told.study.parent / "link").symlink_to(other)
    beside.symlink_to(other.parent)
    places = [
        other,
        f"file://{other}",
        f"{told.study.parent}/../../{other.parent.parent.name}/studies/small",
        f"{told.study.parent}/link",
        f"{beside}/small",
        told.study.parent,
        "relative/small",
        "~/small",
        "s3://elsewhere-too/small",
        "s3://elsewhere",
        "gs://elsewhere/small",
        "memory://elsewhere/small",
    ]
    client = browser(app)
    for place in places:
        answer = client.get(at(place))
        assert (answer.status_code, ELSEWHERE in answer.text.replace("&#x27;", "'")) == (403, True), place
        assert str(told.study.parent) not in answer.text, "what is listed is not for everyone"


@pytest.mark.parametrize(
    "url",
    [
        "s3://elsewhere/../secrets/small",
        "s3://elsewhere/%2e%2e/secrets/small",
        "s3://elsewhere/small?endpoint_url=http://evil",
        "s3://elsewhere/small#x",
        "s3://key:secret@elsewhere/small",
        "s3://elsewhere:x@secrets/small",
        "simplecache::s3://elsewhere/small",
        "s3://elsewhere/a::file:///etc",
        "s3://elsewhere\\small",
        "s3://",
        "/tmp/a\0b",
    ],
)
def test_what_cannot_be_the_url_of_a_study_is_refused_without_a_credential_in_the_answer(app, url):
    answer = browser(app).get(at(url))
    assert answer.status_code == 400
    assert "secret@" not in answer.text
    assert "key:secret" not in answer.text


def test_no_store_is_open_until_the_configuration_lists_one(app, told, monkeypatch):
    monkeypatch.delenv("AIRFLOW__TUNE_TASKS__STORES")
    client = browser(app)
    for path in (told.page(), at(told.study), "/tune/"):
        assert NOTHING in client.get(path).text.replace("&#x27;", "'")
    assert client.get(told.page()).status_code == 403


def test_a_study_that_is_not_there_and_a_log_that_is_broken_are_short_pages(app, told):
    client = browser(app)
    missing = client.get(at(told.study.with_name("missing")))
    assert (missing.status_code, "there is no study here" in missing.text) == (404, True)
    assert not told.study.with_name("missing").exists()
    broken = told.study.with_name("broken") / "log"
    broken.mkdir(parents=True)
    (broken / "000000000001.jsonl").write_text(f"{EVIL}\n")
    answer = client.get(at(broken.parent))
    assert answer.status_code == 500
    assert "script" not in Scripts(answer.text).tags


def test_a_task_without_a_study_says_so(app, told):
    answer = browser(app).get(told.page("no.such.task"))
    assert (answer.status_code, "There is no study here yet" in answer.text) == (404, True)


@pytest.mark.parametrize(("error", "status"), [(tt.Unavailable, 503), (tt.ConfigError, 400), (TuneError, 500)])
def test_a_store_that_does_not_answer_or_lets_nobody_in_is_a_short_page(app, told, monkeypatch, error, status):
    def fail(_):
        raise error(f"the bucket is away {EVIL}")

    monkeypatch.setattr("tune_tasks.store.places.study_log", fail)
    answer = browser(app).get(told.page())
    assert (answer.status_code, "the bucket is away &lt;script&gt;" in answer.text) == (status, True)


def test_a_store_that_never_answers_is_given_up_and_holds_up_no_list(app, told, monkeypatch):
    from tune_tasks_airflow import pages

    answered = threading.Event()
    monkeypatch.setattr(pages, "_SECONDS", 0.2)
    monkeypatch.setattr(pages, "_drawn", lambda _: answered.wait(30))
    client = browser(app)
    try:
        assert [client.get(told.page()).status_code for _ in range(6)] == [504] * 6
        assert str(told.study) in client.get("/tune/").text
    finally:
        answered.set()


def test_looking_at_a_study_writes_nothing_and_one_that_goes_on_is_asked_for_again(app, told):
    before = {path: path.stat().st_mtime_ns for path in told.study.rglob("*")}
    answer = browser(app).get(told.page())
    assert {path: path.stat().st_mtime_ns for path in told.study.rglob("*")} == before
    assert not tt.open_study(str(told.study)).state.done
    assert answer.headers["refresh"] == "30"


def test_airflow_takes_every_view(app):
    found = browser(app, "ADMIN").get("/api/v2/plugins").json()["plugins"]
    (ours,) = [each for each in found if each["name"] == "tune_tasks"]
    assert {view["destination"] for view in ours["external_views"]} == {"task_instance", "dag_run", "nav"}
    views, _ = plugins_manager._get_ui_plugins()
    assert [view for view in views if view in TunePlugin.external_views] == TunePlugin.external_views
    assert not any(view["href"].startswith("/") for view in TunePlugin.external_views)


def test_a_process_that_loads_the_plugin_loads_neither_the_engine_nor_a_web_framework():
    program = (
        "import tune_tasks_airflow.plugin as plugin, sys\n"
        "print('loaded', *({'fastapi', 'tune_tasks', 'tune_tasks_airflow.pages'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded"
