"""Notices of the clouds, from a real HTTP server on this machine that behaves as the documented services do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tune_tasks.errors import ConfigError
from tune_tasks.execution import notices
from tune_tasks.execution.notices import Asked, Aws, Google, Watch, choose
from tune_tasks.sections import NOTICES
from tune_tasks.testing.driving import DEADLINE

ACTION = '{"action": "terminate", "time": "2026-11-21T08:22:00Z"}'


class Cloud:
    """The metadata services of both clouds; its `items` are what there is to read now."""

    def __init__(self) -> None:
        self.items: dict[str, str] = {}
        self.tokens: set[str] = set()
        self.seen: list[str] = []
        self.failing: int | None = None
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
                proxied = "X-Forwarded-For" in self.headers
                if self.path != "/latest/api/token" or proxied or not 1 <= int(seconds or 0) <= 21_600:
                    return self.answer(403 if proxied else 400)
                cloud.tokens.add(f"token-{len(cloud.seen)}")
                return self.answer(200, f"token-{len(cloud.seen)}")

            def do_GET(self) -> None:
                if cloud.failing is not None:
                    return self.answer(cloud.failing)
                if (
                    self.path.startswith("/latest/")
                    and self.headers.get("X-aws-ec2-metadata-token") not in cloud.tokens
                ):
                    return self.answer(401)
                if self.path.startswith("/computeMetadata/") and self.headers.get("Metadata-Flavor") != "Google":
                    return self.answer(403)
                item = cloud.items.get(self.path)
                return self.answer(404) if item is None else self.answer(200, item)

            def answer(self, code: int, text: str = "") -> None:
                cloud.seen.append(f"{self.command} {self.path} {code}")
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    made = Cloud()
    monkeypatch.setattr(notices, "_TIMEOUT", DEADLINE)  # this machine may be busy
    point_at(monkeypatch, made.host)
    yield made
    made.server.shutdown()
    made.server.server_close()


def point_at(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{host}/")
    monkeypatch.setenv("GCE_METADATA_HOST", host)


def until(reached: Callable[[], Any]) -> None:
    end = time.monotonic() + DEADLINE
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.005)


AWS = "/latest/meta-data/"
GOOGLE = "/computeMetadata/v1/instance/"


def test_amazon_says_when_it_takes_a_spot_instance(cloud: Cloud) -> None:
    aws = Aws()
    assert aws.ask() is None
    cloud.items[f"{AWS}spot/instance-action"] = ACTION
    assert aws.ask() == "EC2 will terminate this spot instance at 2026-11-21T08:22:00Z"
    assert [line.split()[0] for line in cloud.seen] == ["PUT", "GET", "GET"], "one token is enough"


def test_amazons_earlier_advice_is_heard_only_if_asked_for(cloud: Cloud) -> None:
    cloud.items[f"{AWS}events/recommendations/rebalance"] = '{"noticeTime": "2026-10-27T08:22:00Z"}'
    assert Aws().ask() is None
    assert Aws(rebalance=True).ask() == "EC2 recommends since 2026-10-27T08:22:00Z to leave this instance"


def test_a_token_that_expired_is_renewed(cloud: Cloud) -> None:
    aws = Aws()
    aws.ask()
    cloud.tokens.clear()
    cloud.items[f"{AWS}spot/instance-action"] = ACTION
    assert "terminate" in str(aws.ask())
    assert [line.rpartition(" ")[2] for line in cloud.seen] == ["200", "404", "401", "200", "200"]


@pytest.mark.parametrize("code", [401, 403, 500, 503])
def test_a_service_that_refuses_for_good_is_no_answer(cloud: Cloud, code: int) -> None:
    cloud.failing = code
    for notice in (Aws(), Google()):
        with pytest.raises(OSError, match=str(code)):
            notice.ask()
    asked = ["PUT", "GET", "PUT", "GET", "GET"] if code == 401 else ["PUT", "GET", "GET"]
    assert [line.split()[0] for line in cloud.seen] == asked, "only another token may help"


def test_google_says_when_it_preempts_a_vm(cloud: Cloud) -> None:
    google = Google()
    assert google.ask() is None, "an image without these items"
    cloud.items |= {f"{GOOGLE}preempted": "FALSE", f"{GOOGLE}maintenance-event": "NONE"}
    assert google.ask() is None
    cloud.items[f"{GOOGLE}maintenance-event"] = "MIGRATE_ON_HOST_MAINTENANCE"
    assert google.ask() is None, "the VM goes on elsewhere"
    cloud.items[f"{GOOGLE}maintenance-event"] = "TERMINATE_ON_HOST_MAINTENANCE"
    assert google.ask() == "Google announced TERMINATE_ON_HOST_MAINTENANCE for this VM"
    cloud.items[f"{GOOGLE}preempted"] = "TRUE"
    assert google.ask() == "Google preempted this VM"


def test_proxies_are_not_used(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert (Aws().ask(), Google().ask()) == (None, None)


@pytest.mark.parametrize("how", ["hangs", "refuses", "hangs up", "talks nonsense"])
def test_an_address_that_does_not_answer_raises_soon(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(notices, "_TIMEOUT", 0.2)
    listener = socket.create_server(("127.0.0.1", 0))
    point_at(monkeypatch, f"127.0.0.1:{listener.getsockname()[1]}")

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if how == "talks nonsense":
                connection.sendall(b"SSH-2.0-nonsense\r\n\r\n")
            connection.close()

    if how == "refuses":
        listener.close()
    elif how != "hangs":
        threading.Thread(target=serve, daemon=True).start()
    for notice in (Aws(), Google()):
        with pytest.raises(Exception, match=r".") as error:
            notice.ask()
        assert not isinstance(error.value, AssertionError)
    if how != "refuses":
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_a_watch_tells_once(cloud: Cloud) -> None:
    told: list[str] = []
    watch = Watch(Aws(), told.append, every=0.01)
    until(lambda: len(cloud.seen) > 5)
    assert told == []
    cloud.items[f"{AWS}spot/instance-action"] = ACTION
    until(lambda: told)
    watch._thread.join(DEADLINE)
    assert len(told) == 1
    assert watch._thread.daemon, "it must not hold the end of the process"


class Clock(threading.Event):
    """Notes how long a watch would wait, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0)
        return super().wait(0)


def test_who_does_not_answer_is_asked_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(notices, "threading", SimpleNamespace(Event=lambda: clock, Thread=threading.Thread))
    answers = iter([OSError()] * 8 + [None] * 2 + [ValueError("nonsense"), "now"])

    def ask() -> str | None:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    told: list[str] = []
    watch = Watch(Asked(ask), told.append, every=5)
    watch._thread.join(DEADLINE)
    assert clock.waits == [10, 20, 40, 80, 160, 300, 300, 300, 5, 5, 10]
    assert told == ["now"]


def test_a_closed_watch_tells_nothing(cloud: Cloud) -> None:
    told: list[str] = []
    watch = Watch(Aws(), told.append, every=60)
    until(lambda: len(cloud.seen) > 1)
    watch.close()
    watch._thread.join(DEADLINE)
    assert not watch._thread.is_alive()
    assert told == []


def test_an_answer_that_comes_after_the_close_is_not_told() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def ask() -> str:
        asked.set()
        go_on.wait(DEADLINE)
        return "too late"

    told: list[str] = []
    watch = Watch(Asked(ask), told.append)
    assert asked.wait(DEADLINE)
    watch.close()
    go_on.set()
    watch._thread.join(DEADLINE)
    assert told == []


@pytest.mark.parametrize(
    ("vendor", "kind"), [("Amazon EC2\n", Aws), ("Google\n", Google), ("QEMU\n", type(None)), (None, type(None))]
)
def test_the_cloud_is_known_by_the_machines_vendor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str | None, kind: type[Any]
) -> None:
    monkeypatch.setattr(notices, "_VENDOR", tmp_path / "sys_vendor")
    if vendor is not None:
        (tmp_path / "sys_vendor").write_text(vendor)
    assert type(choose("auto")) is kind


def test_who_is_asked_is_chosen_by_name(tmp_path: Path, cloud: Cloud) -> None:
    assert type(choose("aws")) is Aws
    assert type(choose("google")) is Google
    assert choose("none") is None
    (tmp_path / "notice_of_ours.py").write_text("def leaving():\n    return 'the queue says so'\n")
    ours = choose("notice_of_ours:leaving", str(tmp_path))
    assert ours is not None
    assert ours.ask() == "the queue says so"
    cloud.items[f"{AWS}events/recommendations/rebalance"] = '{"noticeTime": "now"}'
    advised = choose("aws-rebalance")
    assert advised is not None
    assert advised.ask() is not None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("awss", "execution.notice: 'awss' is not allowed; allowed are auto, aws, aws-rebalance, google, none, or an"),
        ("tune_tasks:nothing", "execution.notice: 'tune_tasks:nothing' is not allowed"),
    ],
)
def test_a_name_that_means_nothing_is_refused(name: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        choose(name)
    assert told in str(error.value)


def test_a_spec_takes_the_names_that_mean_someone() -> None:
    assert set(NOTICES) == set(notices._KINDS)
