"""Files over obstore: to the same place, with the same rights and the same promises as over fsspec."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from typing import Any

import obstore
import pytest

from tests.servers import BUCKET, SECRET
from tests.servers.s3 import S3Server
from tune_tasks.errors import ConfigError, TuneError, Unavailable
from tune_tasks.store import fast, open_objects
from tune_tasks.store.copies import Copied
from tune_tasks.store.remote import FsspecObjects

pytestmark = pytest.mark.s3

PART = 5 << 20
"""The smallest that S3 takes."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of few bytes have several parts, and more of them than are under way at once."""
    monkeypatch.setattr(fast, "PART", PART)
    monkeypatch.setattr(fast, "PARTS_AT_ONCE", 2)


@pytest.fixture(params=["azurite", "moto", "radosgw"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture(params=["moto", "radosgw"])
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
def url(server: Any, reach: Callable[[Any], str]) -> str:
    return reach(server)


@pytest.fixture
def s3_url(s3_server: S3Server, reach: Callable[[Any], str]) -> str:
    return reach(s3_server)


def use(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def only_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    """What obstore does not do fails, instead of being done over fsspec."""

    def refuse(*_: object) -> Copied:
        raise AssertionError("went over fsspec")

    monkeypatch.setattr(FsspecObjects, "_upload", refuse)
    monkeypatch.setattr(FsspecObjects, "_download", refuse)


def written(path: Path, size: int) -> Copied:
    data = os.urandom(size)
    path.write_bytes(data)
    return Copied(size, hashlib.sha256(data).hexdigest())


@pytest.mark.usefixtures("only_obstore")
@pytest.mark.parametrize("size", [1, PART - 1, PART, PART + 1, 3 * PART + 5])
def test_a_file_comes_back_as_it_was_and_its_digest_is_that_of_its_bytes(url: str, tmp_path: Path, size: int):
    source = written(tmp_path / "source", size)
    objects = open_objects(url)
    assert objects.upload(tmp_path / "source", "ckpt/file") == source
    assert objects.download("ckpt/file", tmp_path / "target", size) == source
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()
    objects.delete("ckpt/file")


def test_an_empty_file_comes_back_too(url: str, tmp_path: Path):
    source = written(tmp_path / "source", 0)
    objects = open_objects(url)
    assert objects.upload(tmp_path / "source", "ckpt/file") == source
    assert objects.list("ckpt/") == ["ckpt/file"]
    assert objects.download("ckpt/file", tmp_path / "target", 0) == source
    assert (tmp_path / "target").read_bytes() == b""


@pytest.mark.usefixtures("only_obstore")
@pytest.mark.parametrize("name", ["a b", "ü", "#%20?x=1&y+z", "[]~{}*'!()", "a:b=c,d;e@f", "$HOME^`|<>"])
def test_a_name_means_the_same_to_both_of_them(url: str, tmp_path: Path, name: str):
    source, key = written(tmp_path / "source", 100), f"ckpt/data/{name}"
    objects = open_objects(url)
    objects.upload(tmp_path / "source", key)
    assert objects.list("") == [key]
    assert objects.read(key) == (tmp_path / "source").read_bytes()
    assert objects.download(key, tmp_path / "target", 100) == source


@pytest.mark.usefixtures("only_obstore")
@pytest.mark.parametrize("length", [1, PART, 2 * PART + 1])
def test_what_is_behind_the_end_of_a_file_is_not_read(url: str, tmp_path: Path, length: int):
    written(tmp_path / "source", 3 * PART + 1)
    data = (tmp_path / "source").read_bytes()[:length]
    objects = open_objects(url)
    objects.upload(tmp_path / "source", "ckpt/file")
    assert objects.download("ckpt/file", tmp_path / "target", length) == (length, hashlib.sha256(data).hexdigest())
    assert (tmp_path / "target").read_bytes() == data
    objects.delete("ckpt/file")


@pytest.mark.parametrize("length", [0, 1, PART - 1, PART, PART + 1])
def test_a_file_that_is_too_short_is_told_as_it_is(
    url: str, tmp_path: Path, length: int, monkeypatch: pytest.MonkeyPatch
):
    source = written(tmp_path / "source", length)
    objects = open_objects(url)
    objects.upload(tmp_path / "source", "ckpt/file")
    if length % PART:  # else a range begins at the end, which is an error to obstore
        monkeypatch.setattr(FsspecObjects, "_download", None)
    assert objects.download("ckpt/file", tmp_path / "target", 3 * PART) == source
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


def test_a_file_that_is_absent_is_none_and_the_next_one_comes_over_obstore(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    objects = open_objects(url)
    assert objects.download("ckpt/absent", tmp_path / "target", 10) is None
    assert objects.download("ckpt/absent", tmp_path / "target", 3 * PART) is None
    source = written(tmp_path / "source", 10)
    monkeypatch.setattr(FsspecObjects, "_upload", None)
    assert objects.upload(tmp_path / "source", "ckpt/file") == source


@pytest.mark.usefixtures("only_obstore")
def test_a_file_that_is_there_is_replaced(url: str, tmp_path: Path):
    objects = open_objects(url)
    for size in (2 * PART + 1, 10, PART + 1):
        source = written(tmp_path / "source", size)
        objects.upload(tmp_path / "source", "ckpt/file")
        assert objects.download("ckpt/file", tmp_path / "target", 3 * PART) == source
    objects.delete("ckpt/file")


@pytest.mark.parametrize("size", [100, 3 * PART])
def test_an_upload_that_breaks_leaves_nothing(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int):
    """Not even an unfinished upload, whose parts nobody would see, and everybody would pay for."""
    written(tmp_path / "source", size)

    def broken(*given: object) -> Iterator[bytes]:
        yield from [*read(*given)][:-1]  # type: ignore[arg-type]
        raise RuntimeError("it broke")

    read = fast._read
    monkeypatch.setattr(fast, "_read", broken)
    objects = FsspecObjects(s3_url, 1.0)
    assert objects._fast.upload(tmp_path / "source", objects._path("ckpt/file")) is None
    assert objects.list("") == []
    files = objects._filesystem()
    assert not files.call_s3("list_multipart_uploads", Bucket=BUCKET).get("Uploads")


@pytest.mark.parametrize("size", [10, 2 * PART])
def test_after_a_failure_fsspec_copies_for_a_while(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, size: int
):
    source, tried, put = written(tmp_path / "source", size), [], obstore.put
    monkeypatch.setattr("obstore.put", lambda *_, **__: tried.append(1) or 1 / 0)
    objects = open_objects(url)
    with caplog.at_level(logging.DEBUG, logger="tune_tasks.store.fast"):
        for _ in range(3):
            assert objects.upload(tmp_path / "source", "ckpt/file") == source
    assert len(tried) == 1
    assert [record.message for record in caplog.records if record.name == "tune_tasks.store.fast"] == [
        f"files of {BUCKET} go over fsspec for 60 s: ZeroDivisionError"
    ]
    monkeypatch.setattr("obstore.put", put)
    monkeypatch.setattr("tune_tasks.store.fast.time.monotonic", lambda: objects._inner._fast._rests_until)
    monkeypatch.setattr(FsspecObjects, "_upload", None)
    assert objects.upload(tmp_path / "source", "ckpt/file") == source


def canaries(*errors: BaseException, log: pytest.LogCaptureFixture) -> None:
    said = [part for error in errors for part in (str(error), repr(error), repr(error.__cause__))]
    said += [record.getMessage() for record in log.records if record.name.startswith("tune_tasks")]
    for text in said:
        assert SECRET not in text
        assert "another-canary" not in text


@pytest.mark.parametrize("s3_server", ["radosgw"], indirect=True)  # moto lets everybody in
@pytest.mark.parametrize("call", ["upload", "download"])
def test_a_wrong_key_is_a_mistake_in_the_spec(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str
):
    written(tmp_path / "file", 10)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-canary")
    with caplog.at_level(logging.DEBUG, logger="tune_tasks"), pytest.raises(ConfigError, match="HTTP 403") as caught:
        transfer(s3_url, call, tmp_path)
    canaries(caught.value, log=caplog)


def transfer(url: str, call: str, folder: Path, deadline: float = 5.0, size: int = 10) -> Copied | None:
    objects = open_objects(url, deadline=deadline)
    given = (folder / "file", "ckpt/file") if call == "upload" else ("ckpt/file", folder / "target", size)
    return getattr(objects, call)(*given)


@pytest.mark.parametrize("call", ["upload", "download"])
@pytest.mark.parametrize("size", [10, 2 * PART])
def test_a_bucket_that_does_not_exist_names_the_store(
    s3_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, call: str, size: int
):
    written(tmp_path / "file", size)
    with pytest.raises(ConfigError, match=r"^store: s3://absent-bucket/x: HTTP 404 NoSuchBucket") as caught:
        transfer("s3://absent-bucket/x", call, tmp_path, size=size)
    canaries(caught.value, log=caplog)


@pytest.mark.parametrize("call", ["upload", "download"])
@pytest.mark.parametrize("size", [10, 2 * PART])
def test_a_server_that_is_not_there_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str, size: int
):
    use(S3Server("http://127.0.0.1:9").environment, monkeypatch)
    written(tmp_path / "file", size)
    with (
        caplog.at_level(logging.DEBUG, logger="tune_tasks"),
        pytest.raises(Unavailable, match=rf"s3://bucket/x: cannot {call} ckpt/file within 1 s") as caught,
    ):
        transfer("s3://bucket/x", call, tmp_path, deadline=1.0, size=size)
    canaries(caught.value, log=caplog)


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", dedent(script), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.parametrize("server", ["moto"], indirect=True)
@pytest.mark.parametrize(("hidden", "loaded"), [("", True), ("obstore", False)])
def test_it_is_chosen_where_it_is_installed_and_not_missed_where_it_is_not(
    url: str, tmp_path: Path, hidden: str, loaded: bool
):
    source = written(tmp_path / "file", 3 * PART)
    script = """
        import sys
        from pathlib import Path
        url, file, target, hidden = sys.argv[1:]
        if hidden:
            sys.modules[hidden] = None
        from tune_tasks.store import open_objects
        objects = open_objects(url)
        up = objects.upload(Path(file), "ckpt/file")
        down = objects.download("ckpt/file", Path(target), up.size)
        print(up == down, up.digest, sys.modules.get("obstore") is not None)
    """
    said = run(script, url, str(tmp_path / "file"), str(tmp_path / "target"), hidden)
    assert said.split() == ["True", source.digest, str(loaded)]
    open_objects(url).delete("ckpt/file")


@pytest.mark.parametrize("s3_server", ["radosgw"], indirect=True)  # moto needs seconds for each part
def test_memory_does_not_grow_with_the_files_nor_with_their_number(s3_url: str, tmp_path: Path):
    """Eight files of 48 MiB at once, as the threads of a checkpoint copy them."""
    with (tmp_path / "file").open("wb") as file:
        for _ in range(48):
            file.write(os.urandom(1 << 20))
    script = """
        import resource, sys
        from concurrent.futures import ThreadPoolExecutor
        from pathlib import Path
        from tune_tasks.store import open_objects
        url, folder = sys.argv[1], Path(sys.argv[2])
        objects = open_objects(url)
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        def copy(number):
            up = objects.upload(folder / "file", f"ckpt/{number}")
            assert objects.download(f"ckpt/{number}", folder / f"target{number}", up.size) == up
            objects.delete(f"ckpt/{number}")
        (folder / "small").write_bytes(b"x")
        objects.upload(folder / "small", "ckpt/small")
        before = peak()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(copy, range(8)))
        print(peak() - before)
    """
    assert float(run(script, s3_url, str(tmp_path))) < 250


def child(objects: FsspecObjects, source: Path, target: Path, results) -> None:
    up = objects.upload(source, "ckpt/child")
    results.put((up, objects.download("ckpt/child", target, up.size)))


@pytest.mark.usefixtures("url")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_from_one_that_used_it_does_not_hang(url: str, tmp_path: Path):
    """Airflow's LocalExecutor forks; obstore's threads stay behind."""
    source = written(tmp_path / "source", 10)
    objects = FsspecObjects(url, 60.0)
    assert objects._fast.upload(tmp_path / "source", objects._path("ckpt/parent")) == source
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    process = fork.Process(target=child, args=(objects, tmp_path / "source", tmp_path / "target", results))
    process.start()
    try:
        assert results.get(timeout=30) == (source, source)
    finally:
        process.kill()
        process.join()
    assert objects._fast.download(objects._path("ckpt/child"), tmp_path / "target", 10) == source


@pytest.mark.usefixtures("only_obstore")
def test_many_files_at_once_are_each_whole(url: str, tmp_path: Path):
    objects, sizes = open_objects(url), [PART + 1, 100, 20, 1, 3 * PART - 1, 5000, 10, 7]

    def there_and_back(number: int) -> bool:
        source = written(tmp_path / f"source{number}", sizes[number])
        up = objects.upload(tmp_path / f"source{number}", f"ckpt/{number}")
        return source == up == objects.download(f"ckpt/{number}", tmp_path / f"target{number}", up.size)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, range(8)))
    for number in range(8):
        objects.delete(f"ckpt/{number}")


@pytest.mark.parametrize("broken", ["target", "source"])
def test_a_disk_that_is_full_here_is_no_reason_to_rest(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
):
    source = written(tmp_path / "source", 10)
    objects = open_objects(url)
    objects.upload(tmp_path / "source", "ckpt/file")
    if broken == "target":
        with pytest.raises(OSError, match="No space left"):
            objects.download("ckpt/file", Path("/dev/full"), 10)
    else:
        with pytest.raises((OSError, TuneError)):
            objects.upload(tmp_path / "absent", "ckpt/other")
    monkeypatch.setattr(FsspecObjects, "_download", None)
    assert objects.download("ckpt/file", tmp_path / "target", 10) == source
