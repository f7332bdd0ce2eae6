"""Buckets: what a request is and what a reply means, with real servers and with one that answers as a test says.

What a log makes of a network that fails is in test_faulty_network.py.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest

from tests.servers import SECRET
from tests.servers.azurite import KEY
from tests.servers.proxy import proxied
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
        self.release = threading.Event()


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
                self.server.release.wait()
                self._serve(body)
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

    def _store(self, body: bytes) -> None:
        self.server.stored[self.path] = body

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def objects():
    return open_objects("s3://bucket/study", deadline=30.0)


def test_a_commit_is_one_request_and_a_read_is_one(server: Server, objects):
    assert objects.create("log/1", b"one")
    assert objects.read("log/1") == b"one"
    assert objects.read("log/2") is None
    assert server.asked == ["PUT 1", "GET 1", "GET 2"]


def test_a_412_without_a_condition_in_it_is_a_conflict(server: Server, objects):
    assert objects.create("log/1", b"one")
    assert not objects.create("log/1", b"two")
    assert objects.read("log/1") == b"one"


def test_a_reader_is_told_what_is_waited_for_while_a_single_request_hangs(
    server: Server, objects, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    assert module._QUIET <= 2
    monkeypatch.setattr(module, "_QUIET", 0.05)
    server.script = ["hang"]
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(objects.read, "log/1")
        while not caplog.records:
            assert not reading.done()
            time.sleep(0.01)
        line = "s3://bucket/study: no answer yet, waiting up to 30 s to read log/1"
        assert [record.getMessage() for record in caplog.records] == [line]
        assert not reading.done()
        server.release.set()
        assert reading.result() is None


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


def test_credentials_in_the_url_are_used(monkeypatch: pytest.MonkeyPatch, s3: str, server: Server):
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


@pytest.fixture
def without_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_tasks.store.fast.find_spec", lambda name: None)


@pytest.mark.usefixtures("without_obstore")
def test_a_large_file_goes_and_comes_in_parts_of_16_mib(radosgw_server, reach: Callable, tmp_path: Path):
    with proxied(radosgw_server) as network:
        objects = open_objects(reach(network.way))
        data = os.urandom(40 << 20)
        (tmp_path / "source").write_bytes(data)
        copied = objects.upload(tmp_path / "source", "ckpt/large")
        assert objects.download("ckpt/large", tmp_path / "target", len(data)) == copied
        assert (tmp_path / "target").read_bytes() == data
        assert objects.download("ckpt/large", tmp_path / "longer", len(data) + (20 << 20)) == copied
    assert [seen.size >> 20 for seen in network.met("PUT", "partNumber=")] == [16, 16, 8]
    assert [seen.sent >> 20 for seen in network.met("GET", "ckpt/large")[:6]] == 2 * [16, 16, 8]


MEASURED = """
import resource, sys
from pathlib import Path
from tune_tasks.store import fast, open_objects
fast.find_spec = lambda name: None
objects, source = open_objects(sys.argv[1]), Path(sys.argv[2])
def copied(size):
    with source.open("wb") as file:
        file.truncate(size)
    objects.upload(source, "ckpt/file")
    objects.download("ckpt/file", source, size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
print(copied(32 << 20), copied(256 << 20))
"""


def test_a_file_of_any_size_costs_memory_for_a_few_parts(radosgw_server, reach: Callable, tmp_path: Path):
    command = [sys.executable, "-c", MEASURED, reach(radosgw_server), str(tmp_path / "file")]
    measured = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    small, large = map(int, measured.stdout.split())
    assert large - small < 48, "MiB more for 256 MiB than for 32"


def test_a_container_that_does_not_exist_names_the_store(azurite_server, reach: Callable):
    reach(azurite_server)
    objects = open_objects("abfs://absent/x")
    for call in (lambda: objects.list(""), lambda: objects.read("log/1"), lambda: probe(objects)):
        with pytest.raises(ConfigError, match=r"^store: abfs://absent/x: HTTP 404 ContainerNotFound"):
            call()


def test_an_upload_that_was_killed_is_found_and_removed_once_it_is_old(radosgw_server, reach: Callable):
    """Not with moto, where every upload was begun in 2010."""
    url = reach(radosgw_server)
    objects, other = open_objects(url), open_objects(f"{url}2")
    files = objects._inner._filesystem()
    bucket, _, folder = url.removeprefix("s3://").partition("/")
    for name in (f"{folder}/ckpt/0/data/a", f"{folder}2/ckpt/0/data/b"):
        begun = files.call_s3("create_multipart_upload", Bucket=bucket, Key=name)
        upload = {"Bucket": bucket, "Key": name, "UploadId": begun["UploadId"]}
        for part in (1, 2):
            files.call_s3("upload_part", **upload, PartNumber=part, Body=b"x" * 100)
    objects.upload(Path(__file__), "ckpt/0/data/whole")
    now = objects.entries("ckpt/")[0].modified
    assert objects.unfinished(now - 3600, remove=True) == []
    (found,) = objects.unfinished(now + 3600)
    assert (found.key, found.size) == ("ckpt/0/data/a", 200)
    assert abs(found.modified - now) < 60
    assert objects.unfinished(now + 3600, remove=True) == [found]
    assert objects.unfinished(now + 3600) == []
    assert len(other.unfinished(now + 3600)) == 1
    assert objects.list("") == ["ckpt/0/data/whole"]


def test_a_listing_of_more_than_a_page_is_whole(radosgw_server, reach: Callable):
    objects = open_objects(reach(radosgw_server))
    keys = [f"log/{number:012d}.jsonl" for number in range(1100)]
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda key: objects.create(key, b""), keys))
    assert objects.list("log/") == keys


@pytest.mark.parametrize("kind", ["azurite_server", "google_server"])
def test_permission_and_conflict_are_told_by_status_on_every_cloud(
    request: pytest.FixtureRequest, reach: Callable, kind: str
):
    with proxied(request.getfixturevalue(kind)) as network:
        objects = open_objects(reach(network.way))
        network.fail("403 Forbidden", times=float("inf"))
        for call in (lambda: objects.create("log/1", b"x"), lambda: objects.read("log/1"), lambda: objects.list("")):
            network.exchanges.clear()
            with pytest.raises(ConfigError, match=f"^store: {objects.url}: HTTP 403"):
                call()
            assert len(network.exchanges) == 1
        network.heal()
        network.exchanges.clear()
        assert objects.create("log/1", b"one")
        assert not objects.create("log/1", b"two")
        assert [seen.status for seen in network.exchanges] in ([201, 409], [200, 412])
        assert objects.read("log/1") == b"one"


def test_the_key_within_a_connection_string_is_not_shown(azurite_server, reach: Callable):
    with proxied(azurite_server) as network:
        objects = open_objects(reach(network.way))
        network.fail(f"403 {KEY}", times=float("inf"))
        with pytest.raises(ConfigError, match=r"HTTP 403") as refused:
            objects.read("log/1")
    assert KEY not in str(refused.value)
    assert "***" in str(refused.value)


def test_google_is_asked_once_and_with_the_condition_in_the_request(
    google_server, reach: Callable, caplog: pytest.LogCaptureFixture
):
    with proxied(google_server) as network:
        objects = open_objects(reach(network.way))
        assert objects.create("log/1", b"one")
        objects.replace("HEAD.json", b"{}")
        assert objects.read("log/1") == b"one"
        created, replaced, read = network.exchanges
    assert "ifGenerationMatch=0" in created.path
    assert "ifGenerationMatch" not in replaced.path
    assert (created.method, read.method) == ("POST", "GET")
    assert not [record for record in caplog.records if record.name == "gcsfs"], "it looked for the kind of the bucket"


@pytest.mark.usefixtures("without_obstore")
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
