"""The log is the truth: one winner a number, an unclear outcome is settled, and nothing unreadable is passed over."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest

from tests.store.happenings import STUDY, Happenings, created, replayed, told
from tune_tasks.errors import CorruptLog, Fenced, StudyNotFound, Unavailable
from tune_tasks.events import Event, Opened, Planned, Promoted, Reports
from tune_tasks.store import Objects, StudyLog, open_objects
from tune_tasks.store import segment as codec
from tune_tasks.store.memory import MemoryObjects
from tune_tasks.store.retry import Retrying
from tune_tasks.store.segment import segment_key


@pytest.fixture
def objects() -> Objects:
    return open_objects(f"memory://{uuid4().hex}")


def promoted(text: str) -> Promoted:
    return Promoted(key=text, model={}, time=1.0)


def write(objects: Objects, tries: int = 60, seed: int = 1, study: str = STUDY) -> list[Event]:
    """Writes a study of random events, a few in each segment, and returns the events."""
    happenings, log = Happenings(Random(seed)), StudyLog(objects)
    assert log.create(created(study))
    happenings.happen(tries)
    for first in range(1, len(happenings.events), 3):
        assert log.commit(happenings.events[first : first + 3], role="step", epoch=0)
    return happenings.events


def change(objects: Objects, number: int, edit: Callable[[bytes], bytes]) -> None:
    objects.replace(segment_key(number), edit(objects.read(segment_key(number)) or b""))


def test_what_was_committed_is_loaded(objects: Objects):
    events = write(objects)
    log = StudyLog(objects)
    assert told(log.load()) == told(replayed(events))
    assert [event for segment in log.segments() for event in segment.events] == events
    assert log.head == len(objects.list("log/")) == 1 + (len(events) + 1) // 3


def test_segments_can_be_read_from_the_middle(objects: Objects):
    write(objects)
    every = list(StudyLog(objects).segments())
    assert list(StudyLog(objects).segments(5)) == every[4:]
    assert list(StudyLog(objects).segments(len(every) + 1)) == []


def test_of_two_writers_one_has_the_number_and_the_other_decides_anew(objects: Objects):
    write(objects)
    first, second = StudyLog(objects), StudyLog(objects)
    first.load()
    second.load()
    head = first.head
    assert first.commit([promoted("first")], role="step", epoch=0)
    assert not second.commit([promoted("second")], role="step", epoch=0)
    assert (first.head, second.head) == (head + 1, head)
    assert "first" in second.load().steps
    assert second.commit([promoted("second")], role="step", epoch=0)
    assert list(StudyLog(objects).load().steps)[-2:] == ["first", "second"]


def test_of_two_that_create_a_study_one_does(objects: Objects):
    assert StudyLog(objects).create(created("one"))
    assert not StudyLog(objects).create(created("two"))
    assert StudyLog(objects).load().study == "one"


def test_where_there_is_no_study_nothing_is_loaded(objects: Objects):
    log = StudyLog(objects)
    assert not log.exists()
    with pytest.raises(StudyNotFound, match=r"memory://\w+: there is no study here"):
        log.load()
    with pytest.raises(ValueError, match="load or create"):
        log.commit([promoted("x")], role="step", epoch=0)
    assert objects.list("") == []


def test_catching_up_is_loading_what_is_new(objects: Objects):
    write(objects)
    reader, writer = StudyLog(objects), StudyLog(objects)
    state = reader.load()
    writer.load()
    assert reader.catch_up(state) == 0
    for name in "abcdef":
        writer.commit([promoted(name)], role="step", epoch=0)
    assert reader.catch_up(state) == 6
    assert reader.head == writer.head
    assert told(state) == told(StudyLog(objects).load())
    assert reader.commit([promoted("g")], role="step", epoch=0)


class Breaking(MemoryObjects):
    """Breaks creates by number, from the next one on: before they land, or after, when the reply is lost."""

    def __init__(self, *breaks: str) -> None:
        super().__init__(uuid4().hex)
        self.breaks = list(breaks)
        self.hidden: set[str] = set()
        self.reads: list[str] = []

    def create(self, key: str, data: bytes) -> bool:
        match self.breaks.pop(0) if self.breaks else "":
            case "before":
                raise Unavailable("reset")
            case "after":
                super().create(key, data)
                raise Unavailable("reset")
            case "refused":  # what a client says that sent its request twice and got the reply to the second
                super().create(key, data)
                return False
            case "overtaken":
                super().create(key, other_segment(self, key))
                raise Unavailable("reset")
        return super().create(key, data)

    def read(self, key: str) -> bytes | None:
        self.reads.append(key)
        if key in self.hidden:
            self.hidden.remove(key)
            return None
        return super().read(key)


def other_segment(objects: MemoryObjects, key: str) -> bytes:
    """What another writer would have put there."""
    log = StudyLog(Retrying(objects, 1))
    log.load()
    before = log._at
    segment = codec.Segment(
        STUDY, before.number + 1, 0, "step", "other", "other", before.chain, 1.0, (promoted("other"),)
    )
    assert key == segment_key(segment.number)
    return codec.encode(segment)


@pytest.mark.parametrize("broken", ["after", "refused"])
@pytest.mark.parametrize("deadline", [0.0, 60.0])
def test_a_commit_whose_reply_was_lost_is_known_to_have_landed(broken: str, deadline: float):
    store = Breaking("", broken)
    log = StudyLog(Retrying(store, deadline))
    assert log.create(created())
    assert log.commit([promoted("mine")], role="step", epoch=0)
    assert log.head == 2
    assert store.list("log/") == [segment_key(1), segment_key(2)]
    assert "mine" in StudyLog(Retrying(store, 1)).load().steps


def test_a_commit_that_did_not_land_leaves_the_position_and_can_be_made_again():
    store = Breaking("", "before")
    log = StudyLog(Retrying(store, 0.0))
    assert log.create(created())
    with pytest.raises(Unavailable, match=r"create log/000000000002\.jsonl within 0 s"):
        log.commit([promoted("mine")], role="step", epoch=0)
    assert log.head == 1
    assert log.commit([promoted("mine")], role="step", epoch=0)


def test_a_commit_that_broke_while_another_took_the_number_did_not_land():
    store = Breaking("", "overtaken")
    log = StudyLog(Retrying(store, 0.0))
    assert log.create(created())
    assert not log.commit([promoted("mine")], role="step", epoch=0)
    assert log.head == 1
    assert list(log.load().steps) == ["other"]


def test_without_reading_back_a_lost_reply_would_commit_twice(monkeypatch: pytest.MonkeyPatch):
    """The negative control of the read-back: a writer that takes every refusal for a conflict."""
    store = Breaking("", "refused")
    log = StudyLog(Retrying(store, 0.0))
    monkeypatch.setattr(StudyLog, "_landed", lambda self, key, data: self.objects.create(key, data))
    assert log.create(created())
    while not log.commit([promoted("mine")], role="step", epoch=0):
        log.load()
    events = [event for segment in log.segments() for event in segment.events]
    assert events.count(promoted("mine")) == 2


def write_many(url: str, me: str, count: int, barrier) -> None:
    log = StudyLog(open_objects(url))
    state = log.load()
    barrier.wait()
    for number in range(count):
        while not log.commit([promoted(f"{me}/{number}")], role="step", epoch=0):
            log.catch_up(state)


def race(url: str, writers: int, count: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(writers)
    started = [spawn.Process(target=write_many, args=(url, f"{me}", count, barrier)) for me in range(writers)]
    for process in started:
        process.start()
    for process in started:
        process.join()
        assert process.exitcode == 0


@pytest.mark.parametrize("place", ["local", pytest.param("s3", marks=pytest.mark.s3)])
def test_what_several_processes_commit_is_in_the_log_once_and_in_order(place: str, request, tmp_path: Path):
    url = request.getfixturevalue("s3") if place == "s3" else str(tmp_path)
    writers, count = (2, 15) if place == "s3" else (3, 25)
    log = StudyLog(open_objects(url))
    assert log.create(created())
    race(url, writers, count)
    segments = list(log.segments())
    assert [segment.number for segment in segments] == list(range(1, 2 + writers * count))
    keys = [segment.events[0].key for segment in segments[1:]]
    for me in range(writers):
        assert [key for key in keys if key.startswith(f"{me}/")] == [f"{me}/{number}" for number in range(count)]
    assert len(log.load().steps) == writers * count


def test_a_missing_segment_in_the_middle_stops_everything(objects: Objects):
    write(objects)
    objects.delete(segment_key(4))
    for use in (StudyLog(objects).load, lambda: list(StudyLog(objects).segments())):
        with pytest.raises(CorruptLog, match=r"log/000000000004\.jsonl is missing, but log/0000000000\d\d\.jsonl is"):
            use()


def test_a_gap_at_a_thousand_is_seen(objects: Objects):
    log = StudyLog(objects)
    log.create(created())
    for number in range(2, 1002):
        assert log.commit([promoted(str(number))], role="step", epoch=0)
    for missing in (999, 1000):
        data = objects.read(segment_key(missing))
        objects.delete(segment_key(missing))
        with pytest.raises(CorruptLog, match=f"{segment_key(missing)} is missing"):
            StudyLog(objects).load()
        objects.create(segment_key(missing), data)
    StudyLog(objects).load()


@pytest.mark.parametrize("left", ["log/000000000002.jsonl", "snap/000000000064.0123456789abcdef.snap"])
def test_a_study_without_its_beginning_is_not_begun_again(objects: Objects, left: str):
    objects.create(left, b"anything")
    for use in (StudyLog(objects).exists, StudyLog(objects).load, lambda: StudyLog(objects).create(created())):
        with pytest.raises(CorruptLog, match=f"{segment_key(1)} is missing, but {left} is there"):
            use()


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:100],
        lambda data: data.replace(b'"time":1', b'"time":2', 1),
        lambda data: data + b"\n",
        lambda data: b"\0" * len(data),
    ],
)
@pytest.mark.parametrize("number", [1, 4])
def test_a_changed_segment_stops_everything_and_nothing_is_mended(objects: Objects, number: int, edit: Callable):
    write(objects)
    change(objects, number, edit)
    before = {key: objects.read(key) for key in objects.list("")}
    for use in (StudyLog(objects).load, lambda: list(StudyLog(objects).segments())):
        with pytest.raises(CorruptLog, match=rf"memory://\w+/{segment_key(number)}"):
            use()
    assert {key: objects.read(key) for key in objects.list("")} == before


def forge(objects: Objects, place: int, **fields: object) -> None:
    """Replaces a segment by one that is sealed properly, but is another."""
    segment = codec.decode(objects.read(segment_key(place)) or b"", place)
    objects.replace(segment_key(place), codec.encode(dataclasses.replace(segment, **fields)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"study": "another"}, "000004.jsonl: is of study another, not of 0123456789abcdef"),
        (
            {"previous": "00" * 32},
            "000004.jsonl: follows a segment with digest 0{64}, but the one before has [0-9a-f]+",
        ),
        ({"number": 5}, r"000004.jsonl: holds segment 5 \(digest [0-9a-f]{64}\), expected segment 4"),
        ({"writer": "someone else"}, "000005.jsonl: follows a segment with digest"),
    ],
)
def test_a_segment_that_is_not_of_this_log_stops_everything(objects: Objects, fields: dict, message: str):
    write(objects)
    forge(objects, 4, **fields)
    for use in (StudyLog(objects).load, lambda: list(StudyLog(objects).segments())):
        with pytest.raises(CorruptLog, match=message):
            use()


def test_a_driver_that_was_fenced_and_wrote_all_the_same_is_noticed(objects: Objects):
    log = StudyLog(objects)
    log.create(created())
    log.commit([Opened(epoch=2, owner="new", time=1.0)], role="driver", epoch=2)
    log.commit([promoted("step")], role="step", epoch=0)
    with pytest.raises(Fenced, match=r"a driver of epoch 2 took this study over from epoch 1"):
        log.commit([promoted("old")], role="driver", epoch=1)
    assert objects.create(
        segment_key(4), codec.encode(codec.Segment(STUDY, 4, 1, "driver", "w", "c", log._at.chain, 1.0, ()))
    )
    with pytest.raises(CorruptLog, match=r"000004.jsonl: is by a driver of epoch 1, after one of epoch 2"):
        StudyLog(objects).load()


@pytest.mark.parametrize(
    "event",
    [
        Reports(trial=[99], attempt=[1], step=[1], time=[1.0], metrics={"loss": [1.0]}),
        Opened(epoch=0, owner="old", time=1.0),
        Planned.model_validate(
            {
                "key": "k",
                "run": "r",
                "round": 0,
                "batch": "b",
                "proposals": ({"number": 98, "params": {}, "reason": ""},),
                "assignments": (),
                "exhausted": False,
                "time": 1.0,
            }
        ),
    ],
)
def test_an_event_that_cannot_follow_names_its_segment(objects: Objects, event: Event):
    log = StudyLog(objects)
    log.create(created())
    log.commit([event], role="step", epoch=0)
    with pytest.raises(CorruptLog, match=rf"{segment_key(2)}: does not follow from the segments before"):
        StudyLog(objects).load()


def test_a_log_of_another_study_under_this_header_is_noticed(objects: Objects):
    data = codec.encode(codec.Segment("another", 1, 0, "step", "w", "c", "", 1.0, (created(),)))
    objects.create(segment_key(1), data)
    with pytest.raises(CorruptLog, match=f"is of study another, not of {STUDY}"):
        StudyLog(objects).load()


def test_a_newer_format_is_refused(objects: Objects, monkeypatch: pytest.MonkeyPatch):
    write(objects)
    monkeypatch.setattr(codec, "FORMAT", 2)
    log = StudyLog(objects)
    monkeypatch.setattr(codec, "FORMAT", 1)
    log.load()
    monkeypatch.setattr(codec, "FORMAT", 2)
    log.commit([promoted("new")], role="step", epoch=0)
    monkeypatch.setattr(codec, "FORMAT", 1)
    with pytest.raises(CorruptLog, match="has format 2, and this version of tune_tasks reads formats up to 1"):
        StudyLog(objects).load()


def test_a_commit_that_is_too_large_changes_nothing(objects: Objects, monkeypatch: pytest.MonkeyPatch):
    write(objects)
    log = StudyLog(objects)
    log.load()
    before = objects.list("")
    monkeypatch.setattr(codec, "LIMIT", 1000)
    with pytest.raises(ValueError, match="ask for smaller batches"):
        log.commit([promoted("x" * 1000)], role="step", epoch=0)
    assert objects.list("") == before
    assert log.commit([promoted("x")], role="step", epoch=0)


def test_every_segment_says_who_wrote_it(objects: Objects):
    log = StudyLog(objects)
    log.create(created())
    log.commit([Opened(epoch=1, owner="me", time=2.0)], role="driver", epoch=1)
    first, second = (json.loads((objects.read(key) or b"").splitlines()[0]) for key in objects.list("log/"))
    assert first["writer"] == second["writer"]
    assert first["commit"] != second["commit"]
    assert (first["role"], second["role"], second["epoch"]) == ("step", "driver", 1)
    assert second["format"] == 1
