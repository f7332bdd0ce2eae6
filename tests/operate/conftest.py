"""A study that a real run left, with checkpoints, output, a promoted model and snapshots; and ways to break one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest

from tests.store.happenings import STUDY, Happenings, created, replayed
from tests.studies import SPEC, write_study
from tune_tasks import open_study, promote_best, tune
from tune_tasks.store import Objects, StudyLog, open_objects
from tune_tasks.store.aside import AtOnce
from tune_tasks.store.segment import segment_key

Write = Callable[..., Objects]


def truncated(objects: Objects, head: int) -> Objects:
    """The log up to a segment, at a place of its own."""
    other = open_objects(f"memory://{uuid4().hex}")
    for number in range(1, head + 1):
        assert other.create(segment_key(number), objects.read(segment_key(number)) or b"")
    return other


def snapshot_at(objects: Objects, number: int) -> str:
    """Gives a study the snapshot that was due after a segment; returns its key."""
    other = truncated(objects, number)
    log = StudyLog(other, aside=AtOnce())
    log.snapshot(log.load())
    (key,) = other.list("snap/")
    for name in (key, "HEAD.json"):
        objects.replace(name, other.read(name) or b"")
    return key


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the study, made once."""
    folder = tmp_path_factory.mktemp("made")
    spec = write_study(folder, promotion={**SPEC["promotion"], "model": "small"}, budget={"trials": 6})
    study = tune(spec)
    assert promote_best(study).promoted
    place = folder / "studies" / "small"
    head = open_study(place).log.head
    for number in (head // 2, head - 1):
        snapshot_at(open_objects(str(place)), number)
    return place


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may break, at another place than it was made."""
    return Path(shutil.copytree(made, tmp_path / "studies" / "small"))


@pytest.fixture
def objects(study: Path) -> Objects:
    return open_objects(str(study))


@pytest.fixture
def write() -> Write:
    """Writes a log of random events, one in each segment, and no checkpoints' data."""

    def make(segments: int, seed: int = 1, study: str = STUDY, url: str = "") -> Objects:
        objects = open_objects(url or f"memory://{uuid4().hex}")
        happenings, log = Happenings(Random(seed)), StudyLog(objects, aside=AtOnce())
        state = replayed([created(study)])
        assert log.create(created(study))
        while log.head < segments:
            for event in happenings.happen(1):
                state.apply(event)
                assert log.commit([event], role="step", epoch=0)
        return objects

    return make
