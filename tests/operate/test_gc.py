"""A sweep removes what nothing names and is old enough by the store's own clock, and nothing else, ever."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from tests.histories import Story
from tests.operate.conftest import Write, snapshot_at
from tests.views.conftest import spec
from tune_tasks.errors import ConfigError, CorruptLog, StudyNotFound
from tune_tasks.events import Checkpointed, CheckpointRef
from tune_tasks.operate import check_study, sweep_study
from tune_tasks.store import Entry, Objects, StudyLog, open_objects, publish
from tune_tasks.store.local import LocalObjects
from tune_tasks.store.memory import MemoryObjects
from tune_tasks.store.retry import Retrying
from tune_tasks.store.segment import segment_key

DAY = 24 * 3600.0


def age(study: Path, seconds: float) -> None:
    """Makes everything in a folder older."""
    for path in study.rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - seconds
            os.utime(path, (then, then))


def contents(objects: Objects) -> dict[str, bytes | None]:
    return {key: objects.read(key) for key in objects.list("")}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    (tmp_path / "saved").mkdir()
    for name in ("weights", "optimizer"):
        (tmp_path / "saved" / name).write_bytes(name.encode() * 100)
    return tmp_path / "saved"


def test_of_a_sound_study_nothing_is_removed_however_old(study: Path, objects: Objects) -> None:
    age(study, 100 * DAY)
    before = contents(objects)
    swept = sweep_study(study)
    assert (swept.removals, swept.younger, swept.unknown, swept.models) == ((), 0, (), ())
    assert contents(objects) == before
    assert sweep_study(study, grace=0).removals == ()
    assert contents(objects) == before


def test_what_nothing_names_goes_and_what_is_unknown_stays(study: Path, objects: Objects, saved: Path) -> None:
    before = contents(objects)
    orphan = publish(objects, saved, "ckpt/000001/7/3").key
    unfinished = publish(objects, saved, "ckpt/000001/7/4").key
    objects.delete(f"{unfinished}/manifest.json")
    model = publish(objects, saved, "models/000001-000002-01234567").key
    objects.delete(f"{model}/manifest.json")
    probe = f"probe/{uuid4().hex}"
    objects.create(probe, b"x")
    temporary = study / "log" / ".tmp-1"
    temporary.write_bytes(b"half")
    unknown = ("ckpt/mine.txt", "log/000000000001.jsonl.bak", "notes/README.txt")
    for key in unknown:
        objects.create(key, b"mine")
    age(study, 2 * DAY)
    swept = sweep_study(study)
    told = {removal.key: removal.kind for removal in swept.removals}
    assert told == {
        orphan: "checkpoint",
        unfinished: "unfinished upload",
        model: "unfinished upload",
        probe: "probe",
        "log/.tmp-1": "temporary file",
    }
    assert swept.unknown == unknown
    assert not temporary.exists()
    assert contents(objects) == {**before, **dict.fromkeys(unknown, b"mine")}
    figures = {removal.key: removal for removal in swept.removals}
    assert figures[unfinished].size == 100 * len("weights" + "optimizer")
    assert figures[orphan].size > figures[unfinished].size
    assert swept.size == sum(removal.size for removal in swept.removals)
    assert all(2 * DAY <= removal.age < 3 * DAY for removal in swept.removals)
    assert check_study(study).sound
    assert sweep_study(study).removals == ()


def test_a_dry_run_says_the_same_and_removes_nothing(study: Path, objects: Objects, saved: Path) -> None:
    publish(objects, saved, "ckpt/000001/7/3")
    (study / "log" / ".tmp-1").write_bytes(b"half")
    age(study, 2 * DAY)
    before = contents(objects)
    dry = sweep_study(study, dry_run=True)
    assert len(dry.removals) == 2
    assert (contents(objects), (study / "log" / ".tmp-1").exists()) == (before, True)
    wet = sweep_study(study)
    assert [(r.kind, r.key, r.size) for r in wet.removals] == [(r.kind, r.key, r.size) for r in dry.removals]


@pytest.mark.parametrize(("older", "goes"), [(DAY - 100, False), (DAY + 100, True)])
def test_the_grace_period_counts_from_the_newest_object_of_a_checkpoint(
    study: Path, objects: Objects, saved: Path, older: float, *, goes: bool
) -> None:
    key = publish(objects, saved, "ckpt/000001/7/3").key
    age(study, 10 * DAY)
    manifest = study / key / "manifest.json"
    then = time.time() - older
    os.utime(manifest, (then, then))
    swept = sweep_study(study)
    assert [removal.key for removal in swept.removals] == ([key] if goes else [])
    assert swept.younger == (0 if goes else 1)
    assert bool(objects.list(f"{key}/")) is not goes


class Skewed(MemoryObjects):
    """A store whose clock is far from this machine's."""

    def entries(self, prefix: str) -> list[Entry]:
        return [entry._replace(modified=entry.modified - 400 * DAY) for entry in super().entries(prefix)]


def test_ages_are_by_the_clock_of_the_store(saved: Path, write: Write) -> None:
    place = uuid4().hex
    objects = Retrying(Skewed(place), 1.0)
    source = write(3)
    for key in source.list("log/"):
        objects.create(key, source.read(key) or b"")
    key = publish(objects, saved, "ckpt/000001/7/3").key
    swept = sweep_study(objects)
    assert (swept.removals, swept.younger) == ((), 1)
    assert objects.list(f"{key}/")


def test_old_snapshots_go_but_the_newest_two_and_the_one_of_the_hint(write: Write) -> None:
    objects = write(50)
    hinted = snapshot_at(objects, 10)
    hint = objects.read("HEAD.json") or b""
    others = [snapshot_at(objects, number) for number in (20, 30, 40, 50)]
    objects.replace("HEAD.json", hint)
    swept = sweep_study(objects, grace=0)
    assert [removal.key for removal in swept.removals if removal.kind == "snapshot"] == others[:2]
    assert objects.list("snap/") == [hinted, *others[2:]]


def running(saved: Path) -> tuple[Objects, Checkpointed]:
    """A study with one running trial, whose checkpoint lies in the store; and the record of it, not committed yet."""
    story = Story(spec())
    story.open()
    trial = story.propose({"x": 0.5, "kind": "a"}, budget=9)
    story.start(trial)
    story.tell(trial, [1], [{"loss": 0.5}])
    objects = open_objects(f"memory://{uuid4().hex}")
    log = StudyLog(objects)
    assert log.create(story.events[0])
    assert log.commit(story.events[1:], role="driver", epoch=1)
    reference = publish(objects, saved, "ckpt/000000/1/1")
    return objects, Checkpointed(trial=trial, attempt=1, step=1, checkpoint=reference, time=1.0)


class Meanwhile(MemoryObjects):
    """Has something happen right after the listing."""

    def __init__(self, objects: Objects, then: Callable[[], None]) -> None:
        super().__init__(objects.url.removeprefix("memory://"))
        self.then = then

    def entries(self, prefix: str) -> list[Entry]:
        found = super().entries(prefix)
        if prefix == "":
            self.then()
        return found


def test_a_checkpoint_that_is_recorded_after_the_listing_survives(saved: Path) -> None:
    objects, event = running(saved)
    log = StudyLog(objects)
    log.load()

    def record() -> None:
        assert log.commit([event], role="driver", epoch=1)

    assert sweep_study(Retrying(Meanwhile(objects, record), 1.0), grace=0).removals == ()
    assert check_study(objects).findings == ()


def test_a_checkpoint_that_is_published_after_the_listing_survives(saved: Path) -> None:
    objects, event = running(saved)
    late: list[CheckpointRef] = []

    def save() -> None:
        late.append(publish(objects, saved, "ckpt/000000/1/2"))

    sweep_study(Retrying(Meanwhile(objects, save), 1.0), grace=0)
    assert objects.list(f"{event.checkpoint.key}/") == []  # without a grace period nothing protects this one
    log = StudyLog(objects)
    log.load()
    recorded = event.model_copy(update={"step": 1, "checkpoint": late[0]})
    assert log.commit([recorded], role="driver", epoch=1)
    assert check_study(objects).findings == ()


def test_within_the_grace_period_an_unrecorded_checkpoint_of_a_live_driver_survives(saved: Path) -> None:
    objects, event = running(saved)
    assert (sweep_study(objects).removals, sweep_study(objects).younger) == ((), 1)
    log = StudyLog(objects)
    log.load()
    assert log.commit([event], role="driver", epoch=1)
    assert check_study(objects).findings == ()


def test_killed_in_the_middle_it_leaves_an_upload_that_the_next_sweep_removes(study: Path, saved: Path) -> None:
    objects = open_objects(str(study))
    before = contents(objects)
    publish(objects, saved, "ckpt/000001/7/3")

    class Dying(LocalObjects):
        left = 2

        def delete(self, key: str) -> None:
            if key.startswith("ckpt/"):
                self.left -= 1
                if not self.left:
                    raise KeyboardInterrupt
            super().delete(key)

    with pytest.raises(KeyboardInterrupt):
        sweep_study(Retrying(Dying(study), 1.0), grace=0)
    assert not any(key.endswith("3/manifest.json") for key in objects.list("ckpt/000001/7/"))
    (removal,) = sweep_study(study, grace=0).removals
    assert removal.kind == "unfinished upload"
    assert contents(objects) == before


def test_where_the_log_cannot_be_read_nothing_is_removed(study: Path, objects: Objects, saved: Path) -> None:
    publish(objects, saved, "ckpt/000001/7/3")
    for key in objects.list("snap/"):
        objects.delete(key)
    objects.replace(segment_key(4), b"x")
    before = contents(objects)
    with pytest.raises(CorruptLog, match="000000000004"):
        sweep_study(study, grace=0)
    objects.delete(segment_key(1))
    with pytest.raises(CorruptLog):
        sweep_study(study, grace=0)
    assert contents(objects) == {key: data for key, data in before.items() if key != segment_key(1)}


def test_a_model_that_no_promotion_names_is_said_and_stays(study: Path, objects: Objects, saved: Path) -> None:
    key = publish(objects, saved, "models/000001-000002-01234567").key
    age(study, 2 * DAY)
    swept = sweep_study(study)
    assert (swept.removals, swept.models) == ((), (key,))
    assert objects.list(f"{key}/")


def test_where_there_is_no_study_nothing_is_removed(tmp_path: Path) -> None:
    place = tmp_path / "photos"
    (place / "ckpt" / "1" / "1").mkdir(parents=True)
    (place / "ckpt" / "1" / "1" / "mine").write_bytes(b"x")
    with pytest.raises(StudyNotFound):
        sweep_study(place, grace=0)
    assert [path.name for path in place.rglob("*") if path.is_file()] == ["mine"]


@pytest.mark.parametrize("grace", [-1.0, float("nan")])
def test_a_grace_period_that_cannot_be_meant_is_refused(study: Path, grace: float) -> None:
    with pytest.raises(ConfigError, match="grace"):
        sweep_study(study, grace=grace)


@pytest.mark.s3
def test_a_bucket_is_swept_alike(s3: str, saved: Path, write: Write) -> None:
    objects = open_objects(s3)
    source = write(5)
    for key in source.list("log/"):
        objects.create(key, source.read(key) or b"")
    orphan = publish(objects, saved, "ckpt/000001/7/3").key
    assert (sweep_study(s3).removals, sweep_study(s3).younger) == ((), 1)
    assert [removal.key for removal in sweep_study(s3, grace=0).removals] == [orphan]
    assert objects.list("") == source.list("log/")
