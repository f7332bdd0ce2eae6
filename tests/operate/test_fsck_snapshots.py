"""A snapshot is verified against the log: one that lies, or knows of more than there is, is an error."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.operate.breaking import change, flip, problems, problems_of_the_log, sealed
from tests.operate.conftest import Write, snapshot_at, truncated
from tune_tasks.operate import check_study
from tune_tasks.store import Objects, StudyLog
from tune_tasks.store.segment import fingerprint, segment_key


def test_a_snapshot_ahead_of_the_log_says_what_was_lost(objects: Objects) -> None:
    head = len(objects.list("log/"))
    newest = objects.list("snap/")[-1]
    for number in (head - 1, head):
        objects.delete(segment_key(number))
    errors = problems(check_study(objects))
    assert errors[-1][0] == newest
    assert f"after segment {head - 1}" in errors[-1][1]
    assert f"ends with segment {head - 2}" in errors[-1][1]


def test_a_snapshot_that_opens_the_study_in_another_state_is_an_error(write: Write) -> None:
    objects, other = write(40), write(40)
    good = truncated(objects, 30)
    log = StudyLog(good)
    state = log.load()
    state.reason = "something else"
    log.snapshot(state)
    log.settle()
    (key,) = good.list("snap/")
    other.replace(key, good.read(key) or b"")
    for number in range(1, 41):
        other.replace(segment_key(number), objects.read(segment_key(number)) or b"")
    assert problems_of_the_log(check_study(other)) == [
        (key, "tells another state than the segments before it: reason differ")
    ]


def test_a_snapshot_of_a_segment_that_was_exchanged_is_an_error(write: Write) -> None:
    objects = write(30)
    key = snapshot_at(objects, 30)
    change(objects, segment_key(30), lambda _: sealed(objects, 30, commit="another"))
    ((found, problem),) = problems_of_the_log(check_study(objects))
    assert found == key
    assert fingerprint(objects.read(segment_key(30)) or b"") in problem


@pytest.mark.parametrize("edit", [flip, lambda data: data[:100], lambda _: b""])
def test_a_corrupt_snapshot_is_a_warning(objects: Objects, edit: Callable[[bytes], bytes]) -> None:
    key = objects.list("snap/")[0]
    change(objects, key, edit)
    found = check_study(objects)
    assert found.sound
    assert [name for name, _ in problems(found, "warning")] == [key]


def test_behind_a_gap_the_fold_goes_on_from_a_snapshot(objects: Objects) -> None:
    objects.delete(segment_key(2))
    key = next(key for key in objects.list("ckpt/") if key.endswith("manifest.json"))
    objects.delete(key)
    found = check_study(objects)
    assert [name for name, _ in problems(found)] == [segment_key(2), key]
    assert found.trials == 6


@pytest.mark.parametrize(
    ("hint", "severity", "told"),
    [
        (None, "note", "is missing"),
        (b"{", "warning", "is not a hint"),
        (b'{"format":1,"snapshot":"snap/x","digest":"y","number":1}', "warning", "names snap/x, which is not there"),
        (b'{"format":9,"snapshot":"snap/x","digest":"y","number":1}', "note", "has format 9"),
    ],
)
def test_a_hint_that_leads_nowhere_is_no_error(objects: Objects, hint: bytes | None, severity: str, told: str) -> None:
    objects.delete("HEAD.json") if hint is None else objects.replace("HEAD.json", hint)
    found = check_study(objects)
    assert found.sound
    ((key, problem),) = problems(found, severity)
    assert (key, told in problem) == ("HEAD.json", True)


def test_a_snapshot_stands_in_for_the_lost_segment_that_it_was_made_after(write: Write) -> None:
    objects = write(40)
    snapshot_at(objects, 20)
    lost = objects.read(segment_key(20)) or b""
    trials = check_study(objects).trials
    objects.delete(segment_key(20))
    found = check_study(objects)
    ((key, problem),) = problems_of_the_log(found)
    assert (key, problem) == (segment_key(20), "is missing, but a later segment is there")
    assert found.trials == trials is not None
    assert any(fingerprint(lost) in finding.remedy for finding in found.findings)
