"""A snapshot is the state, all of it, and behaves like the state when the study goes on."""

from __future__ import annotations

import dataclasses
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.happenings import STUDY, Happenings, replayed, told
from tune_tasks.errors import CorruptLog
from tune_tasks.store import snapshot
from tune_tasks.store.snapshot import Position
from tune_tasks.study import StudyState, Trial

AT = Position(number=7, chain="ab" * 32, study=STUDY, epoch=3)


@given(st.integers(0, 2**32), st.integers(0, 300), st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_a_state_goes_on_from_its_snapshot_as_if_nothing_had_happened(seed: int, before: int, after: int):
    happenings = Happenings(Random(seed))
    happenings.happen(before)
    restored, at = snapshot.decode(snapshot.encode(happenings.state, AT))
    assert at == AT
    assert told(restored) == told(happenings.state)
    for event in happenings.happen(after):
        restored.apply(event)
    assert told(restored) == told(happenings.state)
    assert told(snapshot.decode(snapshot.encode(restored, AT))[0]) == told(replayed(happenings.events))


def unset(state: StudyState) -> list[str]:
    """The fields of a state and of its trials that no event has set."""
    fresh, plain = StudyState(), Trial(-1, {}, "")
    of_state = [name for name in names(StudyState) if getattr(state, name) == getattr(fresh, name)]
    return of_state + [
        name for name in names(Trial) if all(getattr(trial, name) == getattr(plain, name) for trial in state.trials)
    ]


def names(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.name != "curves"]


def full() -> StudyState:
    for seed in range(100):
        happenings = Happenings(Random(seed))
        for _ in range(200):
            happenings.happen(1)
            if not unset(happenings.state):
                return happenings.state
    return happenings.state


def test_no_field_of_a_state_or_a_trial_is_forgotten():
    """Where this fails after a field was added: see that the snapshot keeps it, and that `Happenings` sets it."""
    state = full()
    assert unset(state) == []
    assert told(snapshot.decode(snapshot.encode(state, AT))[0]) == told(state)


def test_a_forgotten_field_is_noticed(monkeypatch: pytest.MonkeyPatch):
    state = full()
    monkeypatch.setattr(snapshot, "_PLAIN", [name for name in snapshot._PLAIN if name != "promotions"])
    assert told(snapshot.decode(snapshot.encode(state, AT))[0]) != told(state)


def test_curves_are_views_into_the_snapshot_until_a_trial_reports_again():
    happenings = Happenings(Random(1))
    happenings.happen(200)
    restored, _ = snapshot.decode(snapshot.encode(happenings.state, AT))
    longest = max(range(len(restored.trials)), key=restored.curves.length)
    assert isinstance(restored.curve(longest), memoryview)


def test_the_same_state_gives_the_same_bytes():
    assert snapshot.encode(full(), AT) == snapshot.encode(full(), AT)


def test_a_snapshot_without_reports_and_without_trials_is_one():
    happenings = Happenings(Random(0))
    restored, _ = snapshot.decode(snapshot.encode(happenings.state, AT))
    assert told(restored) == told(happenings.state)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data + b"\0",
        lambda data: b"{}\n",
        lambda data: b"not JSON\n" + data,
        lambda data: data.replace(b'"format":1', b'"format":2', 1),
        lambda data: data.replace(b'"order":"little"', b'"order":"bigbig"', 1),
        lambda data: data.replace(b'"epoch"', b'"epoxx"', 1),
        lambda data: data.replace(b'"failures"', b'"failurez"', 1),
        lambda data: data.replace(b'"promotions"', b'"promotionz"', 1),
        lambda data: data.replace(b'"fold":4', b'"fold":3', 1),
    ],
)
def test_what_is_not_a_whole_snapshot_is_refused(damage):
    with pytest.raises(CorruptLog, match="not a snapshot"):
        snapshot.decode(damage(snapshot.encode(full(), AT)))
