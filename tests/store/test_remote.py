"""Buckets: against a real server, and against one that answers whatever a test wants to see survived."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest

from tests.store.conftest import SECRET
from tests.store.happenings import created
from tune_tasks.errors import ConfigError, TuneError, Unavailable
from tune_tasks.store import StudyLog, open_objects, probe
from tune_tasks.store import remote as module
from tune_tasks.store.remote import FsspecObjects

pytestmark = pytest.mark.s3


class Server(ThreadingHTTPServer):
    """An S3 of one object at most a key, whose next replies a test decides; it notes what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.stored: dict[str, bytes] = {}
        self.script: list[str] = []
        self.asked: list[str] = []
        self.forever = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(f"{self.command} {self.path.split('/')[-1]}")
        match self.server.script.pop(0) if self.server.script else self.server.forever:
            case "":
                self._serve(body)
            case "hang":
                time.sleep(30)
            case "reset":
                self._hang_up()
            case "lost reply":
                self._store(body)
                self._hang_up()
            case "truncated":
                self._reply(200, self.server.stored[self.path][:-3], length=len(self.server.stored[self.path]))
                self._hang_up()
            case fault:
                status, _, code = fault.partition(" ")
                self._reply(int(status), f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode())

    def _serve(self, body: bytes) -> None:
        if self.command == "PUT":
            taken = self.headers.get("If-None-Match") == "*" and self.path in self.server.stored
            # Without <Condition>, as Ceph answers: s3fs then reports an invalid argument.
            error = b"<Error><Code>PreconditionFailed</Code></Error>"
            self._reply(412, error) if taken else self._store(body) or self._reply(200, b"")
        elif self.path in self.server.stored:
            self._reply(200, self.server.stored[self.path])
        else:
            self._reply(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _store(self, body: bytes) -> None:
        self.server.stored[self.path] = body

    def _reply(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def objects():
    return open_objects("s3://bucket/study", deadline=3.0)


def test_a_commit_is_one_request_and_a_read_is_one(server: Server, objects):
    assert objects.create("log/1", b"one")
    assert objects.read("log/1") == b"one"
    assert objects.read("log/2") is None
    assert server.asked == ["PUT 1", "GET 1", "GET 2"]


def test_a_412_without_a_condition_in_it_is_a_conflict(server: Server, objects):
    assert objects.create("log/1", b"one")
    assert not objects.create("log/1", b"two")
    assert objects.read("log/1") == b"one"


@pytest.mark.parametrize("fault", ["409 ConditionalRequestConflict", "503 SlowDown", "500 InternalError", "reset"])
def test_a_fault_before_it_landed_is_tried_again(server: Server, objects, fault: str):
    server.script = [fault, fault]
    assert objects.create("log/1", b"one")
    assert objects.read("log/1") == b"one"


def test_a_reply_that_was_lost_is_read_back_by_the_log(server: Server, objects, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objects._inner, "list", lambda prefix: [])
    log = StudyLog(objects)
    server.script = ["lost reply"]
    assert log.create(created())
    assert log.head == 1
    assert len(server.stored) == 1
    assert server.asked[0] == server.asked[1] == "PUT 000000000001.jsonl", "the client asked twice, so it had a 412"


@pytest.mark.parametrize("fault", ["truncated", "reset", "503 SlowDown"])
def test_a_read_that_broke_off_is_read_again_in_full(server: Server, objects, fault: str):
    server.stored["/bucket/study/log/1"] = b"all of it"
    server.script = [fault]
    assert objects.read("log/1") == b"all of it"


@pytest.mark.parametrize("fault", ["503 SlowDown", "reset", "truncated", "500 InternalError"])
def test_a_fault_that_lasts_ends_with_the_deadline(
    server: Server, objects, caplog: pytest.LogCaptureFixture, fault: str
):
    server.stored["/bucket/study/log/1"] = b"one"
    server.forever = fault
    with pytest.raises(Unavailable, match=r"s3://bucket/study: cannot read log/1 within 3 s \(s3://bucket/study: "):
        objects.read("log/1")
    waits = [record for record in caplog.records if record.name.startswith("tune_tasks")]
    assert len(waits) <= 1
    server.forever = ""
    assert objects.read("log/1") == b"one"


@pytest.mark.parametrize("call", [lambda it: it.read("log/1"), lambda it: it.create("log/1", b"one")])
def test_a_server_that_hangs_is_given_up(server: Server, call: Callable):
    server.forever = "hang"
    with pytest.raises(Unavailable, match="no answer in time"):
        call(open_objects("s3://bucket/study", deadline=1.0))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("403 AccessDenied", "HTTP 403 AccessDenied"),
        ("404 NoSuchBucket", "HTTP 404 NoSuchBucket"),
        ("400 ExpiredToken", "HTTP 400 ExpiredToken"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda objects: objects.create("log/1", b"x"),
        lambda objects: objects.read("log/1"),
        lambda objects: objects.replace("HEAD.json", b"x"),
        lambda objects: objects.list("log/"),
        probe,
    ],
)
def test_what_only_a_person_can_mend_names_the_store_at_once(
    server: Server, objects, fault: str, message: str, call: Callable
):
    server.forever = fault
    with pytest.raises(ConfigError, match=f"^store: s3://bucket/study: {message}.*check that the bucket exists"):
        call(objects)
    assert len(server.asked) == 1


def test_a_bucket_that_does_not_exist_names_the_store(s3: str):
    with pytest.raises(ConfigError, match=r"^store: s3://absent-bucket/x: HTTP 404 NoSuchBucket"):
        probe(open_objects("s3://absent-bucket/x"))


def test_without_credentials_the_store_is_named(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=f"^store: {s3}: NoCredentialsError"):
        open_objects(s3).read("log/1")


def test_a_server_that_is_not_there_is_unavailable(s3: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match=f"{s3}: cannot read log/1 within 1 s"):
        open_objects(s3, deadline=1.0).read("log/1")


@pytest.mark.parametrize("fault", ["403 AccessDenied", "503 SlowDown", "412 Odd", "404 NoSuchBucket"])
def test_no_secret_is_in_a_message_a_log_line_or_a_repr(server: Server, caplog: pytest.LogCaptureFixture, fault: str):
    """The server's replies quote the secret of the environment; another is in the URL."""
    canary = "canary/in+the/url"
    objects = open_objects(f"s3://canaryuser:{canary}@bucket/study", deadline=1.0)
    server.forever = fault
    said = [repr(objects), str(objects), objects.url, repr(StudyLog(objects))]
    for call in (lambda: objects.read("log/1"), lambda: StudyLog(objects).load(), lambda: objects.list("")):
        with pytest.raises(TuneError) as caught:
            call()
        said += [str(caught.value), repr(caught.value), repr(caught.value.__cause__)]
        assert caught.value.__suppress_context__
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("tune_tasks")]
    for text in [*said, *ours]:
        for secret in (SECRET, canary, "canaryuser", "canary%2Fin"):
            assert secret not in text


def test_credentials_in_the_url_are_used(s3_server: str, monkeypatch: pytest.MonkeyPatch, s3: str, server: Server):
    seen: list[str] = []
    monkeypatch.setattr(
        Handler, "_serve", lambda self, body: seen.append(self.headers["Authorization"]) or self._reply(200, b"")
    )
    open_objects("s3://theuser:thesecret@bucket/study").replace("HEAD.json", b"x")
    assert "Credential=theuser/" in seen[0]


def child(objects, results) -> None:
    results.put((objects.read("log/1"), objects.create("log/2", b"two"), objects.create("log/1", b"three")))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_it_works_on_in_a_process_forked_from_one_that_used_it(s3: str):
    """Airflow's LocalExecutor forks; fsspec's instance refuses to work after that."""
    objects = FsspecObjects(s3, 60.0)
    assert objects.create("log/1", b"one")
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    process = fork.Process(target=child, args=(objects, results))
    process.start()
    assert results.get(timeout=60) == (b"one", True, False)
    process.join()
    assert objects.read("log/2") == b"two"


def test_a_large_file_goes_in_parts_and_comes_in_ranges(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_PART", 5 << 20)
    data = os.urandom(12 << 20)
    (tmp_path / "source").write_bytes(data)
    objects = open_objects(s3)
    copied = objects.upload(tmp_path / "source", "ckpt/large")
    assert objects.download("ckpt/large", tmp_path / "target", len(data)) == copied
    assert (tmp_path / "target").read_bytes() == data
    assert objects.download("ckpt/large", tmp_path / "longer", len(data) + (6 << 20)) == copied


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_an_upload_that_breaks_publishes_no_part_of_it(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "source").write_bytes(b"x" * 100)

    def broken(reader, writer):
        writer.write(b"half")
        raise OSError("the disk of the source went away")

    monkeypatch.setattr(module, "copy", broken)
    with pytest.raises(Unavailable, match="went away"):
        open_objects(s3, deadline=0.1).upload(tmp_path / "source", "ckpt/file")
    gc.collect()  # the destructor of a stream closes it, and closing publishes
    assert open_objects(s3).list("") == []


def test_two_places_in_a_bucket_do_not_see_each_other(s3: str):
    name = uuid4().hex
    one, other = open_objects(f"{s3}/{name}"), open_objects(f"{s3}/{name}2")
    other.create("log/1", b"x")
    assert one.list("") == []
    assert one.read("log/1") is None


def test_logs_of_a_study_are_quiet(s3: str, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="tune_tasks"):
        assert StudyLog(open_objects(s3)).create(created())
    assert [record for record in caplog.records if record.name.startswith("tune_tasks")] == []
