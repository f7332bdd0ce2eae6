"""Local files: an object is there whole and durable, or not at all, whatever happens to the process or the disk."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.store import open_objects, probe
from tune_tasks.store.local import LocalObjects

_KILLED = """
import os, signal, sys
from pathlib import Path
from tune_tasks.store.local import LocalObjects

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(os, sys.argv[2], die)
LocalObjects(Path(sys.argv[1])).create("log/000000000001.jsonl", b"x" * 100_000)
"""


@pytest.mark.parametrize("moment", ["fsync", "link"])
def test_a_killed_writer_leaves_no_partial_segment(tmp_path: Path, moment: str):
    (tmp_path / "log").mkdir()
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), moment], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name[:5] for path in (tmp_path / "log").iterdir()] == [".tmp-"]
    objects = open_objects(str(tmp_path))
    assert objects.list("") == []
    assert objects.read("log/000000000001.jsonl") is None
    assert objects.create("log/000000000001.jsonl", b"whole")
    assert objects.list("") == ["log/000000000001.jsonl"]


def test_a_writer_killed_after_the_link_has_written_all_of_it(tmp_path: Path):
    program = _KILLED.replace("setattr(os, sys.argv[2], die)", "os.unlink = Path.unlink = die")
    subprocess.run([sys.executable, "-c", program, str(tmp_path), ""], check=False)
    assert open_objects(str(tmp_path)).read("log/000000000001.jsonl") == b"x" * 100_000


@pytest.mark.parametrize("write", ["create", "replace"])
def test_a_disk_that_is_full_leaves_no_partial_object_and_goes_on_when_there_is_room(tmp_path: Path, write: str):
    """A limit on the size of a file stands for the disk: the write stops in the middle, with a part written."""
    objects = open_objects(str(tmp_path), deadline=0.2)
    objects.create("log/1", b"before")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
    try:
        with pytest.raises(Unavailable, match=r"log/2 within 0\.2 s .*File too large"):
            getattr(objects, write)("log/2", b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["1"]
    getattr(objects, write)("log/2", b"x" * 100_000)
    assert objects.read("log/2") == b"x" * 100_000


def test_the_data_is_on_the_disk_before_it_has_its_name_and_the_name_before_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls: list[str] = []

    def noting(name: str, call):
        def noted(*arguments, **options):
            target = arguments[0]
            kind = "folder" if isinstance(target, int) and Path(f"/proc/self/fd/{target}").is_dir() else "file"
            calls.append(f"{name} {kind}")
            return call(*arguments, **options)

        return noted

    objects = LocalObjects(tmp_path)
    objects.create("log/1", b"makes the folder")
    monkeypatch.setattr(os, "fsync", noting("fsync", os.fsync))
    monkeypatch.setattr(os, "link", noting("link", os.link))
    objects.create("log/2", b"two")
    assert calls == ["fsync file", "link file", "fsync folder"]


def test_new_folders_survive_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    LocalObjects(tmp_path / "studies" / "digits").create("log/1", b"one")
    for folder in (tmp_path, tmp_path / "studies", tmp_path / "studies" / "digits", tmp_path / "studies/digits/log"):
        assert str(folder) in synced


def test_a_refused_study_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    objects = open_objects(str(tmp_path / "new" / "studies" / "digits"))
    probe(objects)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "new").mkdir()
    probe(objects)
    assert [path.name for path in tmp_path.rglob("*")] == ["new"]


def test_deleting_the_last_object_keeps_a_folder_that_was_there_before(tmp_path: Path):
    writer = LocalObjects(tmp_path / "study")
    writer.create("a/b/c", b"x")
    LocalObjects(tmp_path / "study").delete("a/b/c")
    assert [path.name for path in tmp_path.rglob("*")] == ["study"]


@pytest.mark.parametrize("key", ["log/1", "a/b/c/d"])
def test_a_store_below_a_file_names_the_store(tmp_path: Path, key: str):
    (tmp_path / "file").write_text("in the way")
    objects = open_objects(str(tmp_path / "file" / "study"))
    with pytest.raises(ConfigError, match=r"^store: .*/file.*: Not a directory; the store must be a folder"):
        objects.create(key, b"x")
    with pytest.raises(ConfigError, match=r"^store: "):
        objects.read(key)
    with pytest.raises(ConfigError, match=r"^store: "):
        open_objects(str(tmp_path / "file")).create(key, b"x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_names_the_store(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match=r"^store: .*: Permission denied"):
        open_objects(str(tmp_path / "study")).create("log/1", b"x")
    tmp_path.chmod(0o700)


def test_a_read_only_place_names_the_store():
    """/proc refuses new folders, to root too; a message must come at once, not after the deadline."""
    with pytest.raises((ConfigError, Unavailable), match="/proc"):
        open_objects("/proc/studies", deadline=0.1).create("log/1", b"x")


def test_a_source_that_is_absent_is_the_callers_mistake(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        open_objects(str(tmp_path / "store")).upload(tmp_path / "absent", "ckpt/x")


def test_a_relative_path_and_a_home_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_objects("./a/../studies").url == str(tmp_path / "studies")
    assert open_objects("~/studies").url == str(tmp_path / "home" / "studies")


def test_a_folder_that_vanishes_while_one_writes_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another writer's probe may remove an empty folder just before ours is written into it."""
    objects = open_objects(str(tmp_path))
    make, races = LocalObjects._make, [1, 1]

    def raced(self: LocalObjects, folder: Path) -> set[Path]:
        made = make(self, folder)
        if races:
            races.pop()
            folder.rmdir()
        return made

    monkeypatch.setattr(LocalObjects, "_make", raced)
    assert objects.create("log/1", b"one")
    assert objects.read("log/1") == b"one"


def test_what_killed_writers_left_is_found_by_age_and_removed_only_when_asked(tmp_path: Path):
    objects = open_objects(str(tmp_path))
    objects.create("log/1", b"whole")
    for name, age in (("old", 100.0), ("new", 10.0)):
        path = tmp_path / "log" / f".tmp-{name}"
        path.write_bytes(b"part")
        os.utime(path, (1000.0 - age, 1000.0 - age))
    assert [(entry.key, entry.size, entry.modified) for entry in objects.unfinished(950.0)] == [
        ("log/.tmp-old", 4, 900.0)
    ]
    assert [entry.key for entry in objects.unfinished(2000.0)] == ["log/.tmp-new", "log/.tmp-old"]
    assert [entry.key for entry in objects.unfinished(950.0, remove=True)] == ["log/.tmp-old"]
    assert [entry.key for entry in objects.unfinished(2000.0)] == ["log/.tmp-new"]
    assert objects.read("log/1") == b"whole"
    assert [entry.key for entry in objects.entries("")] == ["log/1"]
