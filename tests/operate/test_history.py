"""The log is read as it is: every event in its order, what was asked for and nothing else, and no more than needed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.operate.conftest import Write
from tests.studies import events
from tune_tasks.errors import ConfigError, CorruptLog, StudyNotFound
from tune_tasks.events import Discarded, Judged, Opened, Reports
from tune_tasks.operate import follow_events, read_events
from tune_tasks.operate.history import Record
from tune_tasks.store import Objects, StudyLog, open_objects
from tune_tasks.store.memory import MemoryObjects
from tune_tasks.store.retry import Retrying
from tune_tasks.store.segment import segment_key


def test_every_event_is_read_in_its_order_with_who_wrote_it(study: Path) -> None:
    records = list(read_events(study))
    assert [record.event for record in records] == events(str(study))
    segments = list(StudyLog(open_objects(str(study))).segments())
    assert [(r.segment, r.index) for r in records] == [(s.number, i) for s in segments for i in range(len(s.events))]
    known = {segment.number: segment for segment in segments}
    for record in records:
        segment = known[record.segment]
        assert (record.role, record.epoch, record.writer) == (segment.role, segment.epoch, segment.writer)
        assert record.time == segment.time


def test_types_can_be_chosen(study: Path) -> None:
    assert {record.event.type for record in read_events(study, types=["judged", "opened"])} == {"judged", "opened"}
    whole = [event for event in events(str(study)) if isinstance(event, Judged | Opened)]
    assert [record.event for record in read_events(study, types=["judged", "opened"])] == whole


def test_of_a_trial_only_what_is_about_it_is_told(study: Path) -> None:
    for record in read_events(study, trial=2):
        if isinstance(record.event, Discarded):  # says of several trials at once what is deleted
            assert 2 in record.event.trial
            continue
        event = record.event.model_dump()
        numbers = [
            event.get("trial"),
            *(part["trial"] for name in ("advances", "prunes") for part in event.get(name, ())),
        ]
        assert {n for number in numbers for n in (number if isinstance(number, list) else [number])} <= {2, None}
    steps = [
        s for r in read_events(study, trial=2, types=["reports"]) if isinstance(r.event, Reports) for s in r.event.step
    ]
    whole = [(t, s) for e in events(str(study)) if isinstance(e, Reports) for t, s in zip(e.trial, e.step, strict=True)]
    assert steps == [step for trial, step in whole if trial == 2]
    assert list(read_events(study, trial=99)) == []


@pytest.mark.parametrize("last", [0, 1, 7, 150, 10_000])
@pytest.mark.parametrize("start", [1, 5, 140, 999])
def test_the_last_are_the_last_of_all(write: Write, last: int, start: int) -> None:
    objects = write(200)
    whole = list(read_events(objects, start=start))
    assert list(read_events(objects, start=start, last=last)) == (whole[-last:] if last else [])
    chosen = list(read_events(objects, start=start, types=["judged"]))
    assert list(read_events(objects, start=start, types=["judged"], last=last)) == (chosen[-last:] if last else [])


class Counting(MemoryObjects):
    def __init__(self) -> None:
        super().__init__(uuid4().hex)
        self.reads = 0

    def read(self, key: str) -> bytes | None:
        self.reads += key.startswith("log/")
        return super().read(key)


def test_the_newest_events_of_a_long_log_do_not_cost_all_of_it(write: Write) -> None:
    store = Counting()
    objects = Retrying(store, 1.0)
    source = write(400)
    for number in range(1, 401):
        objects.create(segment_key(number), source.read(segment_key(number)) or b"")
    log = StudyLog(objects)
    log.snapshot(log.load())
    log.settle()
    store.reads = 0
    assert len(list(read_events(objects, last=5))) == 5
    assert store.reads < 150


def test_a_log_of_any_length_is_read_segment_by_segment(write: Write) -> None:
    objects = write(300)

    def peak(keep: bool) -> int:
        kept: list[Record] = []
        tracemalloc.start()
        for record in read_events(objects):
            kept += [record] if keep else []
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(keep=False)  # what is loaded once
    assert 10 * peak(keep=False) < peak(keep=True)


def test_following_goes_on_until_the_study_is_done(study: Path) -> None:
    objects = open_objects(str(study))
    head = len(objects.list("log/"))
    late = {number: objects.read(segment_key(number)) or b"" for number in range(head - 5, head + 1)}
    for key in [*map(segment_key, late), *objects.list("snap/"), "HEAD.json"]:
        objects.delete(key)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        number = min(late)
        objects.create(segment_key(number), late.pop(number))

    records = list(follow_events(study, poll=0.5, sleep=sleep))
    done = max(r.segment for r in records if isinstance(r.event, Judged) and r.event.done)
    assert [r.segment for r in records] == [r.segment for r in read_events(study) if r.segment <= done]
    assert records[-1].segment == done
    assert set(waits) == {0.5}


def test_following_a_study_that_is_done_ends_at_once(study: Path) -> None:
    def never(seconds: float) -> None:
        raise AssertionError("it waited")

    assert list(follow_events(study, last=3, sleep=never)) == list(read_events(study, last=3))


def test_a_broken_segment_ends_the_reading_and_is_named(objects: Objects) -> None:
    objects.replace(segment_key(6), b"x")
    seen: list[Record] = []

    def read() -> Iterator[Record]:
        for record in read_events(objects):
            seen.append(record)
            yield record

    with pytest.raises(CorruptLog, match="000000000006"):
        list(read())
    assert seen[-1].segment == 5
    objects.delete(segment_key(1))
    assert next(read_events(objects, start=7)).segment == 7


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"types": ["judgde"]}, "Did you mean 'judged'"),
        ({"trial": -1}, "trial: -1"),
        ({"start": 0}, "from: 0"),
        ({"last": -1}, "last: -1"),
    ],
)
def test_what_cannot_be_meant_is_refused(study: Path, asked: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        list(read_events(study, **asked))


def test_where_there_is_no_study_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(StudyNotFound):
        list(read_events(tmp_path / "nothing"))
