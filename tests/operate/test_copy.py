"""A copy has the log byte for byte and what it names, whatever happens on the way; or it is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from tests.operate.conftest import Write
from tests.store.happenings import created
from tune_tasks import open_study
from tune_tasks.errors import ConfigError, CorruptLog, StudyNotFound, Unavailable
from tune_tasks.events import Discarded, Promoted
from tune_tasks.operate import check_study, copy_study
from tune_tasks.operate.keys import snapshot_number
from tune_tasks.operate.states import differences
from tune_tasks.store import Objects, StudyLog, fetch, open_objects, publish
from tune_tasks.store.checkpoints import remove
from tune_tasks.store.local import LocalObjects
from tune_tasks.store.memory import MemoryObjects
from tune_tasks.store.retry import Retrying
from tune_tasks.store.segment import segment_key


def log_of(objects: Objects) -> dict[str, bytes | None]:
    return {key: objects.read(key) for key in objects.list("log/")}


@pytest.fixture
def target() -> Objects:
    return open_objects(f"memory://{uuid4().hex}")


@pytest.mark.parametrize("kind", ["local", "memory", "s3"])
def test_a_copy_has_all_that_the_log_names_and_verifies_clean(
    study: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("s3") if kind == "s3" else ""
    url = url or (f"memory://{uuid4().hex}" if kind == "memory" else str(tmp_path / "elsewhere" / "small"))
    source, copied = open_objects(str(study)), copy_study(study, url)
    there = open_objects(url)
    assert log_of(there) == log_of(source)
    assert differences(StudyLog(there).load(), StudyLog(source).load()) == []
    checked = check_study(url)
    assert checked.findings == ()
    assert (checked.checkpoints, checked.models) == (check_study(study).checkpoints, 1)
    assert {key: there.read(key) for key in there.list("logs/")} == {k: source.read(k) for k in source.list("logs/")}
    assert (copied.segments, copied.sent) == (len(source.list("log/")),) * 2
    assert check_study(study).findings == ()


def test_a_checkpoint_of_the_copy_can_be_gone_on_from(study: Path, target: Objects, tmp_path: Path) -> None:
    copy_study(study, target)
    trial = next(trial for trial in StudyLog(target).load().trials if trial.checkpoints)
    reference = trial.checkpoints[0][1]
    there, here = tmp_path / "there", tmp_path / "here"
    fetch(target, reference, there)
    fetch(open_objects(str(study)), reference, here)
    assert [p.read_bytes() for p in sorted(there.iterdir())] == [p.read_bytes() for p in sorted(here.iterdir())]


def test_a_copy_goes_back_to_where_it_came_from(study: Path, target: Objects, tmp_path: Path) -> None:
    copy_study(study, target)
    copy_study(target, tmp_path / "back" / "small")
    assert log_of(open_objects(str(tmp_path / "back" / "small"))) == log_of(open_objects(str(study)))


def test_a_second_copy_sends_nothing(study: Path, target: Objects) -> None:
    copy_study(study, target)
    again = copy_study(study, target)
    assert (again.sent, again.folders, again.files, again.size) == (0, 0, 0, 0)


def test_a_copy_goes_on_where_the_source_went_on(study: Path, target: Objects) -> None:
    source = open_objects(str(study))
    copy_study(source, target)
    log = StudyLog(source)
    log.load()
    assert log.commit([Promoted(key="later", model={}, time=1.0)], role="step", epoch=0)
    assert copy_study(source, target).sent == 1
    assert log_of(target) == log_of(source)


class Dying(MemoryObjects):
    """Ends the process, as it were, at one of its writes: before it, or after it."""

    def __init__(self, place: str, at: int, *, after: bool) -> None:
        super().__init__(place)
        self.left, self.after = at, after

    def _dies(self, write: Callable[[], object]) -> object:
        self.left -= 1
        if self.left > 0:
            return write()
        if self.after:
            write()
        raise KeyboardInterrupt

    def create(self, key: str, data: bytes) -> bool:
        return bool(self._dies(lambda: MemoryObjects.create(self, key, data)))

    def replace(self, key: str, data: bytes) -> None:
        self._dies(lambda: MemoryObjects.replace(self, key, data))


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_write_and_run_again_it_is_complete(study: Path, *, after: bool) -> None:
    source = open_objects(str(study))
    writes = 1
    while True:
        place = uuid4().hex
        try:
            copy_study(source, Retrying(Dying(place, writes, after=after), 1.0))
            break
        except KeyboardInterrupt:
            pass
        half = open_objects(f"memory://{place}")
        log = log_of(half)
        assert list(log.items()) == list(log_of(source).items())[: len(log)]
        copy_study(source, half)
        assert log_of(half) == log_of(source)
        errors = [finding for finding in check_study(half, data=False).findings if finding.severity != "note"]
        assert errors == []
        writes += 7
    assert writes > 30


def test_a_target_with_another_study_is_refused_and_left_alone(study: Path, write: Write) -> None:
    other = write(5)
    before = log_of(other)
    with pytest.raises(ConfigError, match="has another study"):
        copy_study(study, other)
    assert (log_of(other), other.list("ckpt/")) == (before, [])


def test_a_copy_that_went_on_by_itself_is_refused_and_the_segment_named(study: Path, target: Objects) -> None:
    source = open_objects(str(study))
    copy_study(source, target)
    before, logs = log_of(target), {"source": StudyLog(source), "target": StudyLog(target)}
    logs["target"].load()
    logs["source"].load()
    first = segment_key(logs["target"].head + 1)
    assert logs["target"].commit([Promoted(key="here", model={}, time=1.0)], role="step", epoch=0)
    with pytest.raises(ConfigError, match=f"{first}, which .* does not have"):
        copy_study(source, target)
    assert logs["source"].commit([Promoted(key="there", model={}, time=1.0)], role="step", epoch=0)
    with pytest.raises(ConfigError, match=f"{first}, which is not the one of"):
        copy_study(source, target)
    assert {**log_of(target), first: None} == {**before, first: None}


def test_a_target_without_its_beginning_is_refused(study: Path, target: Objects) -> None:
    target.create(segment_key(2), b"x")
    with pytest.raises(ConfigError, match="without its beginning"):
        copy_study(study, target)


def test_a_study_is_not_copied_to_itself(study: Path) -> None:
    with pytest.raises(ConfigError, match="both the source and the target"):
        copy_study(study, f"file://{study}")


@pytest.mark.parametrize("part", ["log/", "ckpt/", "models/"])
def test_a_source_that_is_not_whole_is_not_copied_whole(study: Path, target: Objects, part: str) -> None:
    source = open_objects(str(study))
    key = next(key for key in source.list(part) if part == "log/" or "/data/" in key)
    data = source.read(key) or b""
    source.replace(key, data[:-2] + b"xx")
    with pytest.raises(CorruptLog, match=key.rpartition("/")[2]):
        copy_study(study, target)
    assert target.list("log/") == []


def test_what_is_discarded_while_it_is_copied_is_left_out(study: Path, target: Objects) -> None:
    source = open_objects(str(study))
    log = StudyLog(source)
    trial = next(t for t in log.load().trials if t.state in {"pruned", "completed"} and t.checkpoints)
    step, reference = trial.checkpoints[0]

    class Discarding(LocalObjects):
        """A driver discards the checkpoint just before it is read."""

        def read(self, key: str) -> bytes | None:
            if key == f"{reference.key}/manifest.json" and super().read(key) is not None:
                event = Discarded(trial=[trial.number], step=[step], keys=(reference.key,), time=1.0)
                assert log.commit([event], role="step", epoch=0)
                remove(source, [reference.key])
            return super().read(key)

    copy_study(Retrying(Discarding(study), 1.0), target)
    assert check_study(target).findings == ()
    assert target.list(f"{reference.key}/") == []
    assert log_of(target) == log_of(source)


def test_a_source_that_grows_is_copied_to_its_end(study: Path, target: Objects) -> None:
    source = open_objects(str(study))
    log, left = StudyLog(source), [3]
    log.load()

    def grow(what: str, done: int, of: int) -> None:
        if what == "segments" and left[0]:
            left[0] -= 1
            assert log.commit([Promoted(key=f"more {left[0]}", model={}, time=1.0)], role="step", epoch=0)

    copy_study(study, target, progress=grow)
    assert log_of(target) == log_of(source)
    assert left == [0]


def test_what_nothing_names_is_not_copied(study: Path, target: Objects, tmp_path: Path) -> None:
    source = open_objects(str(study))
    (tmp_path / "saved").write_bytes(b"weights")
    publish(source, tmp_path / "saved", "ckpt/000001/7/3")
    source.replace("notes.txt", b"mine")
    copy_study(study, target)
    assert check_study(target).findings == ()


def test_a_long_copy_opens_by_a_snapshot(target: Objects) -> None:
    source = open_objects(f"memory://{uuid4().hex}")
    log = StudyLog(source)
    assert log.create(created())
    for number in range(99):
        assert log.commit([Promoted(key=str(number), model={}, time=1.0)], role="step", epoch=0)
    copy_study(source, target)
    assert [snapshot_number(key) for key in target.list("snap/")] == [100]
    assert check_study(target).findings == ()


def test_a_store_that_ignores_the_condition_is_refused(study: Path) -> None:
    class Careless(MemoryObjects):
        def create(self, key: str, data: bytes) -> bool:
            self.replace(key, data)
            return True

    place = uuid4().hex
    with pytest.raises(ConfigError, match="only if it is absent"):
        copy_study(study, Retrying(Careless(place), 1.0))
    assert open_objects(f"memory://{place}").list("") == []


def test_a_target_that_does_not_answer_is_unavailable_and_the_copy_goes_on_later(study: Path) -> None:
    class Failing(MemoryObjects):
        def create(self, key: str, data: bytes) -> bool:
            if key == segment_key(4):
                raise Unavailable("reset")
            return super().create(key, data)

    place = uuid4().hex
    with pytest.raises(Unavailable):
        copy_study(study, Retrying(Failing(place), 0.05))
    there = open_objects(f"memory://{place}")
    assert len(there.list("log/")) == 3
    copy_study(study, there)
    assert check_study(there).findings == ()


def test_a_segment_whose_reply_was_lost_is_known_to_have_landed(study: Path) -> None:
    class Repeating(MemoryObjects):
        """Sends everything twice, as some clients do, and says what the second reply was."""

        def create(self, key: str, data: bytes) -> bool:
            landed = super().create(key, data)
            return landed and not key.startswith(("log/", "ckpt/"))

    place = uuid4().hex
    copy_study(study, Retrying(Repeating(place), 1.0))
    assert check_study(open_objects(f"memory://{place}")).findings == ()


@pytest.mark.parametrize("lost", ["/data/", "model.json", "manifest.json"])
def test_what_a_copy_has_lost_is_sent_again(study: Path, target: Objects, lost: str) -> None:
    copy_study(study, target)
    for key in [key for key in target.list("") if lost in key]:
        target.delete(key)
    assert not check_study(target).sound
    copy_study(study, target)
    assert check_study(target).findings == ()


def test_a_copy_that_opens_in_another_state_is_not_called_one(study: Path, target: Objects) -> None:
    copy_study(study, target)
    log = StudyLog(target)
    state = log.load()
    state.reason = "something else"
    log.snapshot(state)
    log.settle()
    with pytest.raises(CorruptLog, match="reason differ"):
        copy_study(study, target)


def test_where_there_is_no_study_nothing_is_copied(tmp_path: Path, target: Objects) -> None:
    with pytest.raises(StudyNotFound):
        copy_study(tmp_path / "nothing", target)
    assert target.list("") == []


def test_a_copy_is_a_study_that_goes_on(study: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere" / "small"
    copy_study(study, place)
    assert open_study(place).state.done
    assert open_study(place).best == open_study(study).best
