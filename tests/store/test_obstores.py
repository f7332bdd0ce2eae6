"""The obstore of a place is the same place as fsspec's, reached with the same credentials."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import pytest
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from tests.servers import ACCESS, BUCKET, SECRET
from tests.servers.azurite import KEY
from tests.servers.s3 import S3Server
from tests.store.test_fast import transfer, use, written
from tune_tasks.errors import ConfigError
from tune_tasks.store import open_objects
from tune_tasks.store.copies import Copied
from tune_tasks.store.remote import FsspecObjects

pytestmark = pytest.mark.s3


@pytest.fixture(params=["moto", "radosgw"])
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
def s3_url(s3_server: S3Server, reach: Callable[[Any], str]) -> str:
    return reach(s3_server)


@pytest.fixture
def only_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    """What obstore does not do fails, instead of being done over fsspec."""

    def refuse(*_: object) -> Copied:
        raise AssertionError("went over fsspec")

    monkeypatch.setattr(FsspecObjects, "_upload", refuse)
    monkeypatch.setattr(FsspecObjects, "_download", refuse)


def test_a_place_that_is_not_certain_is_left_to_fsspec(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The config file asks for signatures that obstore does not make."""
    (tmp_path / "config").write_text("[default]\ns3 =\n  signature_version = s3\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    source = written(tmp_path / "source", 10)
    objects = open_objects(s3_url)
    with caplog.at_level(logging.DEBUG, logger="tune_tasks.store.fast"):
        for _ in range(2):
            assert objects.upload(tmp_path / "source", "ckpt/file") == source
    (said,) = (record.message for record in caplog.records if record.name == "tune_tasks.store.fast")
    assert said == f"files of {BUCKET} go over fsspec and not obstore: requests are signed in another way (s3)"


def test_without_credentials_the_store_is_named(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=f"^store: {s3_url}: NoCredentialsError"):
        transfer(s3_url, "download", tmp_path)


@pytest.mark.usefixtures("only_obstore")
@pytest.mark.parametrize("kind", ["profile", "process", "service variable", "url"])
def test_address_and_credentials_are_those_that_fsspec_finds(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    """In a profile, from a program, in the variable that is for S3 alone, in the URL; the server checks the key."""
    give = f'{{"Version": 1, "AccessKeyId": "{ACCESS}", "SecretAccessKey": "{SECRET}"}}'
    (tmp_path / "give").write_text(f"#!/bin/sh\necho '{give}'\n")
    (tmp_path / "give").chmod(0o700)
    (tmp_path / "config").write_text(
        f"[profile team]\nendpoint_url = {s3_server.url}\nregion = us-east-1\n"
        f"[profile process]\nendpoint_url = {s3_server.url}\ncredential_process = {tmp_path}/give\n"
    )
    (tmp_path / "keys").write_text(f"[team]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n")
    files = {"AWS_CONFIG_FILE": f"{tmp_path}/config", "AWS_SHARED_CREDENTIALS_FILE": f"{tmp_path}/keys"}
    environments = {
        "profile": {**files, "AWS_PROFILE": "team"},
        "process": {**files, "AWS_PROFILE": "process"},
        "service variable": {
            **s3_server.environment,
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
            "AWS_ENDPOINT_URL_S3": s3_server.url,
        },
        "url": {"AWS_ENDPOINT_URL": s3_server.url, "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"},
    }
    use(environments[kind], monkeypatch)
    account = f"{ACCESS}:{SECRET}@" if kind == "url" else ""
    source = written(tmp_path / "file", 10)
    url = f"s3://{account}{BUCKET}/{uuid4().hex}"
    assert transfer(url, "upload", tmp_path) == source
    assert transfer(url, "download", tmp_path) == source


class Recorder(ThreadingHTTPServer):
    """A server that keeps what is put and notes the headers of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.stored: dict[str, bytes] = {}
        self.headers: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Recorder

    def log_message(self, *_: object) -> None:
        pass

    def do_PUT(self) -> None:
        self._note()
        self.server.stored[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._reply(200, b"")

    def do_GET(self) -> None:
        self._note()
        data = self.server.stored[self.path]
        self._reply(206, data, **{"Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}"})

    def _note(self) -> None:
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})

    def _reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"ETag": '"x"', "Last-Modified": "Sat, 21 Nov 2026 16:00:00 GMT", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as recorder:
        threading.Thread(target=recorder.serve_forever, args=(0.05,), daemon=True).start()
        yield recorder
        recorder.shutdown()


@pytest.mark.usefixtures("only_obstore")
def test_a_session_token_goes_along(recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use({**S3Server(recorder.url).environment, "AWS_SESSION_TOKEN": "the token"}, monkeypatch)
    source = written(tmp_path / "file", 10)
    assert transfer("s3://bucket/x", "upload", tmp_path) == source
    assert transfer("s3://bucket/x", "download", tmp_path) == source
    assert [headers["x-amz-security-token"] for headers in recorder.headers] == ["the token"] * 2
    assert {unquote(path): data for path, data in recorder.stored.items()} == {
        "/bucket/x/ckpt/file": (tmp_path / "file").read_bytes()
    }


@pytest.mark.usefixtures("only_obstore")
def test_google_gets_the_token_that_gcsfs_has(recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from google.oauth2.credentials import Credentials

    monkeypatch.setattr("google.auth.default", lambda **_: (Credentials("the token"), "project"))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", recorder.url)
    source = written(tmp_path / "file", 10)
    assert transfer("gs://bucket/x", "upload", tmp_path) == source
    assert transfer("gs://bucket/x", "download", tmp_path) == source
    assert [headers["authorization"] for headers in recorder.headers] == ["Bearer the token"] * 2
    assert {unquote(path): data for path, data in recorder.stored.items()} == {
        "/bucket/x/ckpt/file": (tmp_path / "file").read_bytes()
    }


@pytest.mark.usefixtures("only_obstore")
def test_azure_takes_a_signature_in_the_place_of_a_key(
    azurite_server: Any, reach: Callable[[Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    url, later = reach(azurite_server), datetime.now(UTC) + timedelta(hours=1)
    everything = AccountSasPermissions(read=True, write=True, create=True, list=True)
    signature = generate_account_sas(ACCESS, KEY, ResourceTypes(container=True, object=True), everything, later)
    address = f"{azurite_server.url}/{ACCESS}"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"BlobEndpoint={address};SharedAccessSignature={signature}")
    source = written(tmp_path / "file", 10)
    assert transfer(url, "upload", tmp_path) == source
    assert transfer(url, "download", tmp_path) == source
