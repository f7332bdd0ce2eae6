"""Whatever is broken in a study is found, each of it, with its key, its digests and what to do; and nothing else."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.operate.breaking import change, flip, problems, problems_of_the_log, sealed
from tests.operate.conftest import Write, snapshot_at
from tests.store.happenings import STUDY
from tune_tasks.errors import ConfigError, CorruptLog, StudyNotFound
from tune_tasks.operate import check_study
from tune_tasks.operate.fsck_log import LogCheck
from tune_tasks.store import Objects, StudyLog, open_objects
from tune_tasks.store import segment as codec
from tune_tasks.store.segment import fingerprint, segment_key


def snapshot_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_sound_study_has_no_findings_and_is_left_as_it_was(study: Path) -> None:
    before = snapshot_of(study)
    checked = check_study(study)
    assert checked.findings == ()
    assert checked.sound
    assert (checked.trials, checked.done, checked.models, checked.snapshots) == (6, True, 1, 2)
    assert checked.segments == len(list((study / "log").iterdir()))
    assert checked.checkpoints == len(list(study.glob("ckpt/*/*/*")))
    data = [*study.glob("ckpt/*/*/*/data/*"), *study.glob("models/*/data/*")]
    assert (checked.files, checked.size) == (len(data), sum(path.stat().st_size for path in data))
    assert snapshot_of(study) == before


def test_a_changed_byte_is_found_and_the_segment_behind_names_the_digest_to_bring_back(objects: Objects) -> None:
    before = change(objects, segment_key(5), flip)
    (finding,) = check_study(objects).findings
    assert (finding.severity, finding.key) == ("error", segment_key(5))
    assert "was written with digest" in finding.problem
    assert fingerprint(before) in finding.remedy


def test_every_broken_segment_is_found_not_only_the_first(objects: Objects) -> None:
    change(objects, segment_key(3), flip)
    change(objects, segment_key(6), lambda data: data[: len(data) // 2])
    objects.delete(segment_key(9))
    found = check_study(objects)
    assert [key for key, _ in problems(found)] == [segment_key(3), segment_key(6), segment_key(9)]
    assert "missing" in dict(problems(found))[segment_key(9)]
    assert check_study(objects).segments == found.segments == len(objects.list("log/"))


def test_a_gap_of_several_is_one_finding(objects: Objects) -> None:
    wanted = fingerprint(objects.read(segment_key(7)) or b"")
    for number in (5, 6, 7):
        objects.delete(segment_key(number))
    (finding,) = check_study(objects).findings
    assert (finding.key, "segments up to 7" in finding.problem) == (segment_key(5), True)
    assert f"segment 7 had SHA-256 {wanted}" in finding.remedy


def test_a_missing_beginning_is_found_and_the_rest_verified(objects: Objects) -> None:
    objects.delete(segment_key(1))
    change(objects, segment_key(4), flip)
    assert [key for key, _ in problems(check_study(objects))] == [segment_key(1), segment_key(4)]


def test_a_truncated_last_segment_is_named_by_the_snapshot_of_it(write: Write) -> None:
    objects = write(20)
    snapshot_at(objects, 20)
    before = change(objects, segment_key(20), lambda data: data[:-10])
    (finding,) = (f for f in check_study(objects).findings if f.key.startswith("log/"))
    assert finding.severity == "error"
    assert fingerprint(before) in finding.remedy


def test_an_empty_segment_is_found(objects: Objects) -> None:
    change(objects, segment_key(2), lambda _: b"")
    assert [key for key, _ in problems(check_study(objects))] == [segment_key(2)]


def test_two_studies_in_one_log_are_told_apart(write: Write) -> None:
    objects, other = write(20), write(20, seed=2, study="f" * 32)
    for number in (8, 9):
        objects.replace(segment_key(number), other.read(segment_key(number)) or b"")
    ((key, problem),) = problems_of_the_log(check_study(objects))
    assert key == segment_key(8)
    assert "up to 9 are of study ffff" in problem
    assert f"the log is of study {STUDY}" in problem


def test_a_foreign_first_segment_is_the_one_that_is_wrong(write: Write) -> None:
    objects, other = write(20), write(3, seed=2, study="f" * 32)
    objects.replace(segment_key(1), other.read(segment_key(1)) or b"")
    ((key, problem),) = problems_of_the_log(check_study(objects))
    assert (key, "is of study ffff" in problem) == (segment_key(1), True)


def test_two_histories_of_one_study_are_told_apart(write: Write) -> None:
    objects = write(20)
    change(objects, segment_key(9), lambda _: sealed(objects, 9, commit="another"))
    ((key, problem),) = problems_of_the_log(check_study(objects))
    assert key == segment_key(10)
    assert fingerprint(objects.read(segment_key(9)) or b"") in problem


def test_a_driver_that_wrote_on_after_it_was_replaced_is_found(write: Write) -> None:
    objects = write(6)
    check = LogCheck()
    chain = ""
    for number, epoch in ((1, 0), (2, 3), (3, 2), (4, 3)):
        role = "driver" if epoch else "step"
        data = sealed(objects, number, epoch=epoch, role=role, previous=chain)
        check.take(number, data)
        chain = fingerprint(data)
    check.finish()
    assert [(f.key, f.problem) for f in check.findings if "epoch" in f.problem] == [
        (segment_key(3), "is by a driver of epoch 2, after one of epoch 3")
    ]


def test_what_does_not_follow_from_the_events_before_is_found(write: Write) -> None:
    objects = write(6)
    first = codec.decode(objects.read(segment_key(1)) or b"", 1)
    log = StudyLog(objects)
    log.load()
    event = {"type": "started", "trial": 99, "attempt": 1, "step": 0, "worker": "w", "time": 1.0}
    assert log.commit([codec.decode_event(orjson.dumps(event))], role="step", epoch=0)
    assert first.study == STUDY
    found = check_study(objects)
    assert found.trials is None  # nobody can say what is true after that
    ((key, problem),) = problems_of_the_log(found)
    assert key == segment_key(log.head)
    assert "does not follow from the segments before: IndexError" in problem


def test_a_newer_format_is_said_once_with_what_can_read_it(write: Write) -> None:
    objects = write(12)
    for number in range(5, 13):
        change(objects, segment_key(number), lambda data: data.replace(b'"format":1', b'"format":7', 1))
    (finding,) = check_study(objects).findings
    assert (finding.severity, finding.key) == ("error", segment_key(5))
    assert "has format 7" in finding.problem
    assert "up to 12" in finding.problem
    assert "a newer one" in finding.remedy


def test_a_stray_file_among_the_segments_is_a_warning(objects: Objects) -> None:
    objects.replace("log/000000000002.jsonl.bak", b"x")
    found = check_study(objects)
    assert found.sound
    assert [key for key, _ in problems(found, "warning")] == ["log/000000000002.jsonl.bak"]


def test_a_stray_number_far_ahead_is_a_gap_and_takes_no_longer(objects: Objects) -> None:
    head = len(objects.list("log/"))
    objects.replace(segment_key(999_999_999_999), b"x")
    assert [key for key, _ in problems(check_study(objects))] == [segment_key(head + 1), segment_key(999_999_999_999)]


def test_a_log_that_is_gone_is_found_by_what_it_left(objects: Objects) -> None:
    checkpoints = check_study(objects).checkpoints
    for key in objects.list("log/"):
        objects.delete(key)
    found = check_study(objects)
    assert ("log/", f"is empty, but there are 2 snapshots and {checkpoints} checkpoints") in problems(found)
    assert problems(found, "note") == []  # nothing that may be all that is left is called a leftover


def test_segments_that_are_committed_meanwhile_are_verified_too(study: Path, objects: Objects) -> None:
    head = len(objects.list("log/"))
    late = {number: objects.read(segment_key(number)) or b"" for number in (head - 1, head)}
    for number in late:
        objects.delete(segment_key(number))
    for key in objects.list("snap/"):
        objects.delete(key)

    def commit(what: str, done: int, of: int) -> None:
        for number, data in late.items():
            objects.create(segment_key(number), data)

    found = check_study(study, progress=commit)
    assert (found.segments, found.done) == (head, True)
    assert found.sound


def test_where_there_is_no_study_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(StudyNotFound, match="there is no study here"):
        check_study(tmp_path / "nothing")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(StudyNotFound):
        check_study(tmp_path / "else")


def test_a_url_that_cannot_be_a_studys_is_refused_without_its_secret() -> None:
    with pytest.raises(ConfigError) as refused:
        check_study("s3://user:canary-secret-8c1f2e@bucket/..")
    assert "canary" not in str(refused.value)


@pytest.mark.s3
def test_a_study_in_a_bucket_is_verified_alike(s3: str, made: Path) -> None:
    objects = open_objects(s3)
    for path in sorted(made.rglob("*")):
        if path.is_file():
            objects.replace(path.relative_to(made).as_posix(), path.read_bytes())
    assert check_study(s3).findings == ()
    change(objects, segment_key(3), flip)
    objects.delete(objects.list("ckpt/")[0])
    assert len(problems(check_study(s3))) == 2


def test_fsck_finds_what_makes_a_study_refuse_to_open(write: Write) -> None:
    """Each segment in its turn, lost or changed: a load without snapshots refuses, and nothing else is reported."""
    objects = write(25)
    for number in range(1, 26):
        for edit in (None, flip):
            if (number, edit) == (25, None):
                continue  # a log that ends one segment earlier is whole
            data = objects.read(segment_key(number)) or b""
            objects.delete(segment_key(number)) if edit is None else objects.replace(segment_key(number), edit(data))
            with pytest.raises(CorruptLog):
                StudyLog(objects).load()
            assert [key for key, _ in problems_of_the_log(check_study(objects))] == [segment_key(number)]
            objects.replace(segment_key(number), data)
    assert problems_of_the_log(check_study(objects)) == []


@pytest.mark.parametrize(
    "folder", sorted((Path(__file__).parents[1] / "golden").glob("format-*")), ids=lambda f: f.name
)
def test_the_log_of_every_released_format_is_sound(folder: Path) -> None:
    found = check_study(folder)
    assert problems_of_the_log(found) == []
    assert (found.events > 100, found.snapshots) == (True, 1)
