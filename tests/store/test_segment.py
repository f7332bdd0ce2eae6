"""A segment is read as it was written, or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.happenings import STUDY, Happenings, created
from tune_tasks.errors import CorruptLog
from tune_tasks.events import Promoted, Reports
from tune_tasks.store import segment as codec
from tune_tasks.store.segment import Segment


def sample(seed: int = 3, things: int = 30) -> Segment:
    happenings = Happenings(Random(seed))
    happenings.happen(things)
    return Segment(
        study=STUDY,
        number=7,
        epoch=2,
        role="driver",
        writer="here:1:ab",
        commit="c0ffee",
        previous="ab" * 32,
        time=1000.5,
        events=tuple(happenings.events),
    )


@given(st.integers(0, 2**32), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_whatever_can_happen_is_read_back_as_it_was_written(seed: int, things: int):
    segment = sample(seed, things)
    assert codec.decode(codec.encode(segment), 7) == segment


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_segment_with_one_changed_byte_is_refused(data: st.DataObject):
    written = codec.encode(sample(things=8))
    place = data.draw(st.integers(0, len(written) - 1))
    changed = bytearray(written)
    changed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CorruptLog, match=r"log/000000000007\.jsonl"):
        codec.decode(bytes(changed), 7)


def test_a_segment_without_its_digest_check_would_let_a_change_pass(monkeypatch: pytest.MonkeyPatch):
    """The test above has teeth: what it changes can be a digit of a number that reads well."""
    written = codec.encode(sample(things=8))
    digest = json.loads(written.splitlines()[0])["digest"]
    monkeypatch.setattr(codec, "fingerprint", lambda data: digest)
    assert codec.decode(written.replace(b'"time":1000.5', b'"time":1000.6', 1), 7).time == 1000.6


@pytest.mark.parametrize("cut", [0, 1, 20, 300, 500, -300, -20, -1])
def test_a_torn_segment_is_refused(cut: int):
    with pytest.raises(CorruptLog, match=r"log/000000000007\.jsonl"):
        codec.decode(codec.encode(sample())[:cut], 7)


def test_a_segment_with_something_behind_it_is_refused():
    with pytest.raises(CorruptLog, match="digest"):
        codec.decode(codec.encode(sample()) + b"{}\n", 7)


def test_a_segment_under_another_number_is_refused():
    with pytest.raises(
        CorruptLog, match=r"memory://x/log/000000000008\.jsonl: holds segment 7 \(digest [0-9a-f]{64}\)"
    ):
        codec.decode(codec.encode(sample()), 8, "memory://x")


def test_a_newer_format_is_refused_with_both_versions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(codec, "FORMAT", 3)
    written = codec.encode(sample())
    monkeypatch.setattr(codec, "FORMAT", 2)
    with pytest.raises(CorruptLog, match="has format 3, and this version of tune_tasks reads formats up to 2"):
        codec.decode(written, 7)


@pytest.mark.parametrize("changes", [{"role": "reader"}, {"time": 3}, {"epoch": "2"}, {"study": None}])
def test_a_sealed_header_that_is_not_one_is_refused(changes: dict):
    written = codec.encode(dataclasses.replace(sample(), **changes))
    with pytest.raises(CorruptLog, match="its header is not that of a segment"):
        codec.decode(written, 7)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_have_is_not_written(value: float):
    reports = Reports(trial=[0], attempt=[1], step=[1], time=[1.0], metrics={"loss": [value]})
    with pytest.raises(ValueError, match="'reports' would not be read back"):
        codec.encode(dataclasses.replace(sample(), events=(reports,)))


def test_a_value_that_would_come_back_as_another_is_not_written():
    promoted = Promoted(key="k", model={"pair": (1, 2)}, time=1.0)
    with pytest.raises(ValueError, match="'promoted' would not be read back"):
        codec.encode(dataclasses.replace(sample(), events=(promoted,)))


def test_a_segment_above_the_limit_is_not_written(monkeypatch: pytest.MonkeyPatch):
    written = codec.encode(sample())
    monkeypatch.setattr(codec, "LIMIT", len(written))
    assert codec.encode(sample()) == written
    monkeypatch.setattr(codec, "LIMIT", len(written) - 1)
    with pytest.raises(ValueError, match="ask for smaller batches"):
        codec.encode(sample())


def test_a_key_names_the_number_and_back():
    assert codec.segment_key(42) == "log/000000000042.jsonl"
    assert codec.segment_number("log/000000000042.jsonl") == 42
    assert codec.segment_number("log/000000000042.jsonl.bak") is None


def test_the_header_can_be_checked_without_this_package():
    """The digest is the last field: what is signed is the line without it, and the body."""
    import hashlib

    line, _, body = codec.encode(dataclasses.replace(sample(), events=(created(),))).partition(b"\n")
    signed, digest = line[: line.rindex(b',"digest":')] + b"}", line[-66:-2].decode()
    assert hashlib.sha256(signed + b"\n" + body).hexdigest() == digest == json.loads(line)["digest"]
