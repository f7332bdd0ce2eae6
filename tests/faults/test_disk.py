"""A disk that is full, read-only or broken: a typed error naming the place, nothing half written, and it goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import tune_tasks as tt
from tests.faults.studies import count_on, impatient, sampled, segments, spec_for, steps, unfinished
from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.store import open_objects


class Disk:
    """A file system of one megabyte."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._ballast = folder, folder / "ballast"

    def fill(self, spare: int = 0) -> None:
        """Leaves `spare` bytes."""
        room = os.statvfs(self.folder)
        self._ballast.write_bytes(b"b" * room.f_bavail * room.f_bsize)
        os.truncate(self._ballast, self._ballast.stat().st_size - spare)

    def free(self) -> None:
        """Makes room again."""
        self._ballast.unlink(missing_ok=True)

    def allow(self, mode: str) -> None:
        """Makes it read-only (`ro`) or not (`rw`)."""
        subprocess.run(["mount", "-o", f"remount,{mode}", self.folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here to make a small disk with")
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("write", ["create", "replace"])
def test_a_full_disk_leaves_no_part_of_an_object_and_takes_it_when_there_is_room(disk: Disk, write: str) -> None:
    url = str(disk.folder / "store")
    objects = open_objects(url, deadline=0.2)
    objects.create("log/1", b"before")
    disk.fill(spare=8192)
    with pytest.raises(Unavailable, match=rf"{url}.*No space left on device"):
        getattr(objects, write)("log/2", b"x" * 100_000)
    assert [path.name for path in Path(url, "log").iterdir()] == ["1"]
    disk.free()
    getattr(objects, write)("log/2", b"x" * 100_000)
    assert objects.read("log/2") == b"x" * 100_000


def test_a_checkpoint_that_does_not_fit_gives_its_room_back(disk: Disk, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"w" * 200_000)
    objects = open_objects(str(disk.folder / "store"), deadline=0.2)
    objects.create("log/1", b"before")
    disk.fill(spare=100_000)
    with pytest.raises(Unavailable, match="No space left on device"):
        objects.upload(source, "ckpt/000000/1/1-aaaaaaaa/data/weights")
    assert objects.list("ckpt/") == []


def test_a_step_that_met_a_full_disk_goes_on_when_there_is_room_with_nothing_lost(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    fills = [True]

    def before(trial: int, step: int) -> None:
        if (trial, step) == (1, 3) and fills:
            fills.clear()
            disk.fill()

    study = tt.open_study(spec_for(partial(count_on, before=before), disk.folder))
    batch = tt.sample(study)
    with pytest.raises(Unavailable, match="No space left on device"):
        tt.launch_trials(study, batch)
    acknowledged = segments(study.url)
    assert unfinished(study.url) == []
    assert steps(study.url) == {(0, step): 1 for step in range(1, 7)} | {(1, 1): 1, (1, 2): 1}
    disk.free()
    outcome = tt.launch_trials(study, batch)
    assert outcome.states == {"completed": 2}
    now = segments(study.url)
    assert {name: now[name] for name in acknowledged} == acknowledged
    assert steps(study.url) == {(trial, step): 1 for trial in (0, 1) for step in range(1, 7)}
    assert sampled(study.url) == [0, 1]
    assert [trial.attempts for trial in study.trials] == [1, 2]


def test_a_trial_whose_checkpoint_found_no_room_is_not_to_blame_and_goes_on_from_the_one_before(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small commits still fit beside it, so the driver never notices: the trial alone meets the full disk."""
    impatient(monkeypatch)
    fills = [True]

    def before(trial: int, step: int) -> None:
        disk.free()
        if (trial, step) == (1, 3) and fills:
            fills.clear()
            disk.fill(spare=40_000)

    study = tt.open_study(spec_for(partial(count_on, before=before, size=60_000), disk.folder))
    outcome = tt.launch_trials(study, tt.sample(study))
    assert outcome.states == {"completed": 2}
    trial = study.trials[1]
    assert (trial.failures, trial.losses, trial.attempts) == (0, 1, 2)
    assert "No space left on device" in (trial.error or "")
    assert steps(study.url)[(1, 2)] == 1


def test_a_disk_that_became_read_only_says_so_at_once_and_goes_on_when_it_is_mended(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tt.open_study(spec_for(partial(count_on, before=lambda *_: None), disk.folder))
    disk.allow("ro")
    with pytest.raises(ConfigError, match=rf"store: {disk.folder}.*Read-only file system"):
        tt.sample(study)
    disk.allow("rw")
    assert tt.sample(study).trials == ((0, 6), (1, 6))
    assert unfinished(study.url) == []


def test_a_segment_that_the_disk_cannot_read_stops_the_study_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first page of a process's own memory is never mapped: reading it is a real input/output error."""
    study = tt.open_study(spec_for(partial(count_on, before=lambda *_: None), tmp_path))
    tt.sample(study)
    broken = Path(study.url, "log", "000000000002.jsonl")
    broken.rename(tmp_path / "aside")
    broken.symlink_to("/proc/self/mem")
    impatient(monkeypatch)
    with pytest.raises(Unavailable, match=r"000000000002\.jsonl.*Input/output error"):
        tt.open_study(study.url)
    broken.unlink()
    (tmp_path / "aside").rename(broken)
    assert tt.open_study(study.url).log.head == 2
