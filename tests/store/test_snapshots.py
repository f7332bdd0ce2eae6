"""Whatever becomes of the snapshots and their hint, the state is the one that the log tells."""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import deepcopy
from random import Random
from threading import Event
from uuid import uuid4

import orjson
import pytest

from tests.store.happenings import Happenings, created, replayed, told
from tune_tasks.errors import ConfigError, CorruptLog, Unavailable
from tune_tasks.events import Event as Happened
from tune_tasks.store import Objects, StudyLog, log, open_objects, snapshots
from tune_tasks.store.aside import AtOnce
from tune_tasks.store.memory import MemoryObjects
from tune_tasks.store.retry import Retrying
from tune_tasks.store.segment import fingerprint, segment_key
from tune_tasks.store.snapshot import Position

HINT = "HEAD.json"


class Counting(MemoryObjects):
    """Counts the requests, by kind and key."""

    def __init__(self) -> None:
        super().__init__(uuid4().hex)
        self.calls: list[str] = []

    def read(self, key: str) -> bytes | None:
        self.calls.append(f"read {key}")
        return super().read(key)

    def list(self, prefix: str) -> list[str]:
        self.calls.append(f"list {prefix}")
        return super().list(prefix)


@pytest.fixture
def store() -> Counting:
    return Counting()


@pytest.fixture
def objects(store: Counting) -> Objects:
    return Retrying(store, 1.0)


@pytest.fixture
def events(objects: Objects) -> list[Happened]:
    """A study of 200 segments, with a snapshot whenever one was due."""
    happenings, writer = Happenings(Random(4)), StudyLog(objects, aside=AtOnce())
    state = replayed([created()])
    assert writer.create(created())
    while writer.head < 200:
        for event in happenings.happen(1):
            state.apply(event)
            assert writer.commit([event], role="step", epoch=0)
            if writer.snapshot_due:
                writer.snapshot(state)
    return happenings.events


def test_a_snapshot_is_due_every_44_segments_and_two_are_kept(objects: Objects, events: list[Happened]):
    assert [key.split(".")[0] for key in objects.list("snap/")] == ["snap/000000000132", "snap/000000000176"]
    reader = StudyLog(objects)
    reader.load()
    assert not reader.snapshot_due


def test_opening_reads_the_hint_the_snapshot_and_the_tail(objects: Objects, events: list[Happened], store: Counting):
    store.calls.clear()
    assert told(StudyLog(objects).load()) == told(replayed(events))
    calls = list(store.calls)
    assert calls == [
        "read HEAD.json",
        f"read {newest(objects)}",
        f"read {segment_key(176)}",
        "list log/000000000",
        *[f"read {segment_key(number)}" for number in range(177, 202)],
    ]


def newest(objects: Objects) -> str:
    return objects.list("snap/")[-1]


def hint(objects: Objects, **fields: object) -> None:
    objects.replace(HINT, orjson.dumps({**orjson.loads(objects.read(HINT) or b""), **fields}))


def spoil(objects: Objects, key: str) -> None:
    data = bytearray(objects.read(key) or b"")
    data[len(data) // 2] ^= 1
    objects.replace(key, bytes(data))


def spoil_all(objects: Objects) -> None:
    for key in objects.list("snap/"):
        spoil(objects, key)


def of_a_fork(objects: Objects) -> None:
    """A snapshot that is whole, but of a segment that is not the one in the log."""
    reader = StudyLog(objects)
    state = reader.load()
    state.reason = "what the log does not say"
    at = reader._at
    snapshots.write(objects, state, Position(at.number, "0" * 64, at.study, at.epoch))


def foreign(objects: Objects) -> None:
    """A snapshot of another study, at a number that this log has not reached."""
    state = StudyLog(objects).load()
    state.reason = "another study"
    snapshots.write(objects, state, Position(500, "0" * 64, "another", 0))


DAMAGES: dict[str, tuple[Callable[[Objects], None], str]] = {
    "no hint": (lambda objects: objects.delete(HINT), ""),
    "a hint that is no JSON": (lambda objects: objects.replace(HINT, b"{"), "HEAD.json is not a hint"),
    "a hint without a name": (lambda objects: objects.replace(HINT, b'{"digest": "0"}'), "HEAD.json is not a hint"),
    "a hint that leads elsewhere": (lambda objects: hint(objects, snapshot="../x"), "HEAD.json is not a hint"),
    "a hint ahead of the log": (
        lambda objects: hint(objects, snapshot=f"snap/{999:012d}.{'0' * 16}.snap", number=999),
        "is named by HEAD.json but missing",
    ),
    "a hint with another digest": (lambda objects: hint(objects, digest="0" * 64), "its SHA-256 is"),
    "a stale hint": (lambda objects: hint(objects, snapshot=objects.list("snap/")[0], digest=""), ""),
    "no newest snapshot": (lambda objects: objects.delete(newest(objects)), "is named by HEAD.json but missing"),
    "a corrupt newest snapshot": (lambda objects: spoil(objects, newest(objects)), "its SHA-256 is"),
    "an empty newest snapshot": (lambda objects: objects.replace(newest(objects), b""), "its SHA-256 is"),
    "only corrupt snapshots": (spoil_all, "its SHA-256 is"),
    "a snapshot of a fork": (of_a_fork, "is not one of this log"),
    "a snapshot of another study": (foreign, "is not one of this log"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_state_is_the_same_with(
    damage: str, objects: Objects, events: list[Happened], caplog: pytest.LogCaptureFixture
):
    spoiling, message = DAMAGES[damage]
    spoiling(objects)
    with caplog.at_level(logging.WARNING):
        reader = StudyLog(objects)
        assert told(reader.load()) == told(replayed(events))
    assert reader.head == 200
    assert message in caplog.text
    assert bool(message) == bool(caplog.records)


def test_a_reader_that_trusts_the_snapshot_would_tell_another_state(
    objects: Objects, events: list[Happened], monkeypatch: pytest.MonkeyPatch
):
    """The negative control of the test above."""
    of_a_fork(objects)
    monkeypatch.setattr(StudyLog, "_resume", lambda self: next(snapshots.newest(self.objects)))
    assert told(StudyLog(objects).load()) != told(replayed(events))


def test_a_snapshot_whose_segment_is_gone_stops_everything(objects: Objects, events: list[Happened]):
    for number in range(150, 201):
        objects.delete(segment_key(number))
    with pytest.raises(CorruptLog, match=r"log/000000000176\.jsonl is missing, but there is a snapshot of it"):
        StudyLog(objects).load()


def test_a_tail_that_does_not_follow_from_the_snapshot_stops_everything(objects: Objects, events: list[Happened]):
    objects.replace(segment_key(193), objects.read(segment_key(194)) or b"")
    with pytest.raises(CorruptLog, match=r"log/000000000193\.jsonl"):
        StudyLog(objects).load()


def test_a_hint_is_written_after_the_snapshot_that_it_names(objects: Objects, events: list[Happened]):
    said = orjson.loads(objects.read(HINT) or b"")
    assert said == {
        "format": 1,
        "snapshot": newest(objects),
        "digest": fingerprint(objects.read(newest(objects)) or b""),
        "number": 176,
        "kept": objects.list("snap/"),
    }


@pytest.mark.parametrize("error", [Unavailable("down"), ConfigError("store: no"), TypeError("not JSON")])
def test_a_snapshot_that_fails_costs_only_a_warning(
    objects: Objects,
    events: list[Happened],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
):
    def fail(*_: object) -> None:
        raise error

    writer = StudyLog(objects, aside=AtOnce())
    state = writer.load()
    monkeypatch.setattr(log, "SNAPSHOT_EVERY", 8)
    assert writer.snapshot_due
    monkeypatch.setattr(snapshots, "write", fail)
    writer.snapshot(state)
    assert f"no snapshot at segment 200, the log has it all: {error}" in caplog.text
    assert not writer.snapshot_due


def test_a_commit_does_not_wait_for_a_snapshot_which_is_of_the_state_as_it_was(store: Counting):
    go, at_work = Event(), Event()

    def slow(key: str, data: bytes) -> None:
        at_work.set()
        go.wait()
        MemoryObjects.replace(store, key, data)

    store.replace = slow
    happenings, writer = Happenings(Random(4)), StudyLog(Retrying(store, 1.0))
    assert writer.create(created())
    happenings.happen(20)
    assert all(writer.commit([event], role="step", epoch=0) for event in happenings.events[1:])
    before, number = deepcopy(told(happenings.state)), writer.head
    writer.snapshot(happenings.state)
    at_work.wait()
    for event in happenings.happen(60):
        assert writer.commit([event], role="step", epoch=0)
    go.set()
    writer.settle()
    ((state, at),) = snapshots.newest(Retrying(store, 1.0))
    assert (told(state), at.number) == (before, number)
    assert told(StudyLog(Retrying(store, 1.0)).load()) == told(happenings.state)


def test_snapshots_that_wait_for_a_slow_store_are_left_out_and_not_piled_up(store: Counting):
    go, keys = Event(), []
    store.replace = lambda key, data: (go.wait(), keys.append(key))
    happenings, writer = Happenings(Random(4)), StudyLog(Retrying(store, 1.0))
    assert writer.create(created())
    for event in happenings.happen(20):
        assert writer.commit([event], role="step", epoch=0)
        writer.snapshot(happenings.state)
    go.set()
    writer.settle()
    assert 1 <= sum(key.startswith("snap/") for key in keys) <= 4


def test_a_large_study_opens_from_s3_with_few_requests(s3: str):
    store = open_objects(s3)
    writer, happenings = StudyLog(store), Happenings(Random(2))
    assert writer.create(created())
    happenings.happen(60)
    for event in happenings.events[1:]:
        assert writer.commit([event], role="step", epoch=0)
    writer.snapshot(happenings.state)
    writer.settle()
    for event in happenings.happen(30):
        assert writer.commit([event], role="step", epoch=0)
    assert told(StudyLog(store).load()) == told(happenings.state)
    assert told(StudyLog(open_objects(s3)).load()) == told(replayed(happenings.events))
