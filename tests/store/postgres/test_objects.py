"""A study as rows of a real PostgreSQL: the promises of every store, and the checkpoints with it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from tests.servers import SECRET
from tests.servers.postgres import PostgresServer
from tests.store.happenings import Happenings, created, replayed, told
from tests.studies import COMMAND, write_study
from tune_tasks.errors import Fenced
from tune_tasks.events import Opened, Promoted
from tune_tasks.store import Copied, Objects, StudyLog, fetch, open_objects, publish
from tune_tasks.store import database as connections
from tune_tasks.store import postgres as module
from tune_tasks.store.segment import segment_key
from tune_tasks.studies import open_study
from tune_tasks.testing.stores import StoreContract


def promoted(text: str) -> Promoted:
    return Promoted(key=text, model={}, time=1.0)


class TestPostgres(StoreContract):
    @pytest.fixture
    def objects(self, objects: Objects) -> Objects:
        return objects


class TestPostgresThroughAPooler(StoreContract):
    """A pooler gives every transaction another connection: nothing may rest on the one before."""

    racers, rounds = 2, 20

    @pytest.fixture
    def objects(self, objects: Objects, monkeypatch: pytest.MonkeyPatch) -> Objects:
        monkeypatch.setattr(connections._Pool, "give", lambda pool, session: session.close())
        return objects


@pytest.mark.parametrize("seed", [1, 2])
def test_what_happened_to_a_study_is_read_back_with_and_without_its_snapshots(objects: Objects, seed: int):
    happenings, log = Happenings(Random(seed)), StudyLog(objects)
    assert log.create(created())
    for _ in range(80):
        events = happenings.happen(4)
        assert log.commit(events, role="step", epoch=0)
        if log.snapshot_due:
            log.snapshot(happenings.state)
            log.settle()
    assert len(objects.list("snap/")) == 1
    assert told(StudyLog(objects).load()) == told(replayed(happenings.events))
    for key in [*objects.list("snap/"), "HEAD.json"]:
        objects.delete(key)
    assert told(StudyLog(objects).load()) == told(replayed(happenings.events))


def test_a_driver_that_was_replaced_is_fenced_and_harms_nothing(objects: Objects):
    old, new = StudyLog(objects), StudyLog(objects)
    old.create(created())
    state = old.load()
    assert old.commit([Opened(epoch=1, owner="old", time=1.0)], role="driver", epoch=1)
    new.load()
    assert new.commit([Opened(epoch=2, owner="new", time=2.0)], role="driver", epoch=2)
    assert not old.commit([promoted("late")], role="driver", epoch=1)
    old.catch_up(state)
    with pytest.raises(Fenced, match="a driver of epoch 2 took this study over"):
        old.commit([promoted("late")], role="driver", epoch=1)
    assert new.commit([promoted("new")], role="driver", epoch=2)
    assert [*StudyLog(objects).load().steps] == ["new"]


def test_keys_are_compared_as_bytes_and_no_letter_stands_for_another(objects: Objects):
    keys = [
        "a%b",
        "a_b",
        "aXb",
        "a\u0301b",
        "áb",
        "Áb",
        "log/" + "\N{ARABIC-INDIC DIGIT ZERO}" * 12 + ".jsonl",
        "log/000000000000.jsonl",
        "Z",
        "_",
    ]
    for key in keys:
        assert objects.create(key, key.encode()), key
    assert objects.list("") == sorted(keys)
    assert objects.list("a_") == ["a_b"]
    assert objects.list("a%") == ["a%b"]
    assert objects.list("a") == ["a%b", "aXb", "a_b", "a\u0301b"]
    for key in keys:
        assert objects.read(key) == key.encode()
        assert objects.list(key) == [key]


def test_segments_are_listed_by_any_beginning_of_their_keys(objects: Objects):
    keys = [segment_key(number) for number in (1, 2, 10, 999, 1000, 1001, 999_999_999_999)]
    for key in [*keys, "log/0.txt", "logs/1"]:
        objects.create(key, b"x")
    every = sorted([*keys, "log/0.txt", "logs/1"])
    texts = ["", "l", "log", "log/", "logs", "log/0.", "log/x", *(f"log/{digits}" for digits in ("0", "1", "9"))]
    texts += [f"log/{digits}" for digits in ("000000001", "0000000010", "00000000000", "000000000001")]
    for prefix in [*texts, "log/000000000001.", "log/000000000001x", "log/000000000001.jsonl"]:
        expected = [key for key in every if key.startswith(prefix)]
        assert objects.list(prefix) == expected, prefix
        assert [entry.key for entry in objects.entries(prefix)] == expected, prefix


def test_entries_know_size_and_time_by_the_clock_of_the_server(
    server: PostgresServer, objects: Objects, tmp_path: Path
):
    (tmp_path / "large").write_bytes(b"x" * 3_000_000)
    [[before]] = server.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
    objects.create(segment_key(1), b"12345")
    objects.create("HEAD.json", b"")
    objects.upload(tmp_path / "large", "ckpt/large")
    [[after]] = server.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
    found = objects.entries("")
    assert [entry[:2] for entry in found] == [("HEAD.json", 0), ("ckpt/large", 3_000_000), (segment_key(1), 5)]
    assert all(before <= entry.modified <= after for entry in found)
    assert objects.unfinished(after + 60) == []


def test_two_studies_in_a_database_do_not_see_each_other(url: str):
    one, other, below = open_objects(url), open_objects(f"{url}2"), open_objects(f"{url}/log")
    other.create(segment_key(1), b"x")
    below.create("1", b"x")
    assert one.list("") == []
    assert one.read(segment_key(1)) is None


def test_a_checkpoint_of_many_large_files_comes_back_over_few_connections(
    server: PostgresServer, objects: Objects, url: str, tmp_path: Path
):
    (tmp_path / "source").mkdir()
    for number in range(12):
        (tmp_path / "source" / f"{number}.bin").write_bytes(os.urandom((1 << 20) + 1 + number))
    reference = publish(objects, tmp_path / "source", "ckpt/0/1/5")
    other = open_objects(url)
    fetched = fetch(other, reference, tmp_path / "target")
    for path in (tmp_path / "source").iterdir():
        assert (fetched / path.name).read_bytes() == path.read_bytes()
    for used in (objects, other):
        assert len(used._inner._database._pool[1]._idle) <= connections.COPIES


_COPIER = """
import resource, sys
from pathlib import Path
from tune_tasks.store import open_objects
objects, source = open_objects(sys.argv[1]), Path(sys.argv[2])
objects.create("warm", b"x" * (2 << 20))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
copied = objects.upload(source, "ckpt/large")
assert objects.download("ckpt/large", source.with_name("target"), copied.size) == copied
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_file_costs_memory_for_a_few_pieces(url: str, tmp_path: Path):
    with (tmp_path / "source").open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20))
    done = subprocess.run(
        [sys.executable, "-c", _COPIER, url, str(tmp_path / "source")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 16 << 10, "KiB"
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


def test_an_upload_that_breaks_shows_nothing_and_leaves_nothing(
    server: PostgresServer, objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "source").write_bytes(b"x" * (5 << 20))
    ask, sent = connections.Session.ask, []

    def broken(session, statement, *values):
        if statement == module._ADD:
            sent.append(objects.list(""))
            if len(sent) == 4:
                raise OSError("the disk of the source went away")
        return ask(session, statement, *values)

    monkeypatch.setattr(connections.Session, "ask", broken)
    with pytest.raises(OSError, match="went away"):
        objects.upload(tmp_path / "source", "ckpt/file")
    assert sent == [[]] * 4
    assert objects.list("") == []
    [[left]] = server.execute("SELECT count(*) FROM tune_tasks.pieces WHERE study = %s", objects.url.rpartition("/")[2])
    assert left == 0


def test_an_upload_whose_connection_is_ended_begins_again(
    server: PostgresServer, objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = os.urandom(5 << 20)
    (tmp_path / "source").write_bytes(data)
    ask, sent = connections.Session.ask, []

    def ended(session, statement, *values):
        if statement == module._ADD:
            sent.append(values)
            if len(sent) == 3:
                server.execute("SELECT pg_terminate_backend(%s, 5000)", session._wire.backend_pid)
        return ask(session, statement, *values)

    monkeypatch.setattr(connections.Session, "ask", ended)
    assert objects.upload(tmp_path / "source", "ckpt/file") == Copied(len(data), hashlib.sha256(data).hexdigest())
    assert len(sent) == 3 + 5
    assert objects.read("ckpt/file") == data


@pytest.mark.parametrize("sizes", [(5 << 20, 3 << 20), (5 << 20, 10), (10, 5 << 20), (1 << 20, (1 << 20) + 1), (3, 0)])
def test_a_second_upload_replaces_all_of_the_first(objects: Objects, tmp_path: Path, sizes: tuple[int, int]):
    for size in sizes:
        (tmp_path / "source").write_bytes(os.urandom(size))
        copied = objects.upload(tmp_path / "source", "ckpt/file")
        assert objects.download("ckpt/file", tmp_path / "target", size) == copied
        assert objects.read("ckpt/file") == (tmp_path / "source").read_bytes()
        assert objects.entries("ckpt/")[0].size == size
    objects.replace("ckpt/file", b"small")
    assert objects.read("ckpt/file") == b"small"
    objects.delete("ckpt/file")
    assert objects.read("ckpt/file") is None


def test_a_download_sees_one_object_while_another_replaces_it(objects: Objects, url: str, tmp_path: Path, monkeypatch):
    first, second = os.urandom(3 << 20), os.urandom(3 << 20)
    (tmp_path / "first").write_bytes(first)
    (tmp_path / "second").write_bytes(second)
    objects.upload(tmp_path / "first", "ckpt/file")
    ask, asked = connections.Session.ask, []

    def replaced(session, statement, *values):
        if statement == module._PIECE:
            asked.append(values)
            if len(asked) == 2:
                open_objects(url).upload(tmp_path / "second", "ckpt/file")
        return ask(session, statement, *values)

    monkeypatch.setattr(connections.Session, "ask", replaced)
    objects.download("ckpt/file", tmp_path / "target", 3 << 20)
    assert (tmp_path / "target").read_bytes() == first
    assert objects.read("ckpt/file") == second


def start(*arguments: str, cwd: Path, seconds: float = 0.0) -> subprocess.Popen[bytes]:
    """Starts a command that appends all that it says to `said`."""
    with (cwd / "said").open("ab") as said:
        return subprocess.Popen(
            [*COMMAND, "-v", *arguments],
            env={**os.environ, "STEP_SECONDS": str(seconds)},
            cwd=cwd,
            stdout=said,
            stderr=subprocess.STDOUT,
        )


@pytest.mark.slow
def test_a_study_in_a_database_is_killed_resumed_elsewhere_and_promoted_without_a_trace_of_the_secret(
    server: PostgresServer, tmp_path: Path, url: str
):
    place, objects = f"{url}/small", open_objects(f"{url}/small")
    spec = write_study(tmp_path, store=url, budget={"trials": 4})
    killed = start("run", str(spec), cwd=tmp_path, seconds=0.3)
    while len(objects.list("ckpt/")) < 4:
        assert killed.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    known = {key: objects.read(key) for key in objects.list("log/")}

    resumed = start("resume", place, cwd=tmp_path)
    resumed.wait(timeout=120)
    said = (tmp_path / "said").read_text()
    assert resumed.returncode == 0, said
    study = open_study(place)
    assert study.state.done
    assert len(study.trials) == 4
    assert study.state.promotions[0]["promoted"]
    assert {key: objects.read(key) for key in known} == known
    assert any(trial.attempts > 1 for trial in study.trials)
    assert objects.list("models/")
    assert SECRET not in said
    for key in objects.list(""):
        assert SECRET.encode() not in (objects.read(key) or b""), key
