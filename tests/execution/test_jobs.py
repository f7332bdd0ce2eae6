"""Ray's Jobs API: what a dashboard answers, in words that say what to do. A real one is asked in `test_attend`."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.execution.jobs import Dashboard, Job, Jobs

Answer = tuple[int, Any]


@contextmanager
def dashboard(answer: Callable[[str, str], Answer]) -> Iterator[tuple[str, list[Any]]]:
    """A dashboard that answers as it is told to, by method and path; gives its address and what it was sent."""
    sent: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            sent.append((self.command, self.path, self.headers.get("Authorization"), body))
            status, said = answer(self.command, self.path)
            data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = reply  # noqa: N815  # the names that http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", sent
        server.shutdown()


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_JOB_HEADERS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_a_cluster_that_asks_for_another_token_says_where_it_is_set() -> None:
    said = "Forbidden: Invalid authentication token"
    with dashboard(lambda *_: (403, said)) as (address, _), pytest.raises(ConfigError) as raised:
        Jobs(address).look("any")
    told = str(raised.value)
    assert told.startswith(f"execution.address: the Ray at {address} refuses: Forbidden: Invalid authentication token")
    assert "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here as they are on the cluster" in told


def test_the_token_of_the_environment_goes_along_and_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    (tmp_path / "token").write_text("hunter2\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with dashboard(lambda *_: (404, "no such job")) as (address, sent):
        assert Jobs(address).look("any") == Job("absent")
    assert sent[0][2] == "Bearer hunter2"
    assert "hunter2" not in repr(Dashboard.of(address))


@pytest.mark.parametrize("address", ["auto", "ray://head:10001", "head:6379", None])
def test_an_address_that_is_no_dashboard_is_refused(address: str | None) -> None:
    with pytest.raises(ConfigError, match="give the address of the cluster's dashboard, as http://head:8265"):
        Jobs(address)


def test_where_no_address_is_given_that_of_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265/")
    assert Dashboard.of(None).address == "http://head:8265"


@pytest.mark.parametrize("given", ["X-Team: hunter2", '["hunter2"]'])
def test_headers_of_the_environment_that_are_no_json_object_are_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("RAY_JOB_HEADERS", given)
    with pytest.raises(ConfigError, match=r"^RAY_JOB_HEADERS: must be a JSON object") as raised:
        Dashboard.of("http://head:8265")
    assert "hunter2" not in str(raised.value)
    monkeypatch.setenv("RAY_JOB_HEADERS", '{"X-Team": "vision"}')
    assert Dashboard.of("http://head:8265").headers == {"X-Team": "vision"}


def test_a_job_that_is_there_already_is_not_submitted_again() -> None:
    running = {"status": "RUNNING", "message": "Job is currently running."}
    with dashboard(lambda method, _: (200, running) if method == "GET" else (500, "already exists")) as (address, _):
        assert not Jobs(address).submit("one", "python -V", {})


def test_a_job_whose_environment_cannot_be_set_up_failed_by_its_spec() -> None:
    failed = {"status": "FAILED", "message": "runtime_env setup failed: no space left on device"}
    with dashboard(lambda *_: (200, failed)) as (address, _):
        job = Jobs(address).look("one")
    assert (job.condition, job.exit_code) == ("failed", ConfigError.exit_code)
    assert job.message == "ConfigError: environment: Ray cannot set it up: no space left on device"


@pytest.mark.parametrize(("status", "error"), [(400, ConfigError), (500, Unavailable)])
def test_what_ray_refuses_is_for_the_spec_and_what_it_cannot_take_now_for_a_retry(status: int, error: Any) -> None:
    said = "Traceback\n  File\nValueError: the field 'pip' is no list"
    with (
        dashboard(lambda method, _: (404, "") if method == "GET" else (status, said)) as (address, _),
        pytest.raises(error, match=r": ValueError: the field 'pip' is no list$"),
    ):
        Jobs(address).submit("one", "python -V", {"pip": 3})


def test_a_working_directory_is_sent_once_without_what_is_excluded(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print(1)")
    (tmp_path / "data").write_text("much")
    there: set[str] = set()

    def answer(method: str, path: str) -> Answer:
        if method == "PUT":
            there.add(path)
        return (200, {}) if method != "GET" or path in there else (404, "")

    with dashboard(answer) as (address, sent):
        for name in ("one", "two"):
            assert Jobs(address).submit(name, "python train.py", {"working_dir": str(tmp_path), "excludes": ["data"]})
    assert [method for method, *_ in sent] == ["GET", "PUT", "POST", "GET", "POST"]
    assert zipfile.ZipFile(io.BytesIO(sent[1][3])).namelist() == ["train.py"]
    shipped = json.loads(sent[-1][3])["runtime_env"]
    assert shipped == {"working_dir": f"gcs://{sent[0][1].rpartition('/')[2]}"}


def test_variables_of_its_own_go_to_every_job() -> None:
    with dashboard(lambda *_: (200, {})) as (address, sent):
        Jobs(address, variables={"A_KEY": "1"}).submit("one", "python -V", {"env_vars": {"PLAIN": "2"}})
    assert json.loads(sent[-1][3])["runtime_env"] == {"env_vars": {"PLAIN": "2", "A_KEY": "1"}}


def test_what_is_no_ray_is_said() -> None:
    with (
        dashboard(lambda *_: (200, "<html>hello</html>")) as (address, _),
        pytest.raises(ConfigError, match="is no Ray dashboard: <html>hello</html>"),
    ):
        Jobs(address).version()
