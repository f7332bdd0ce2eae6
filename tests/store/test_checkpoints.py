"""A checkpoint comes back byte for byte, or not at all."""

from __future__ import annotations

import os
import re
from pathlib import Path
from uuid import uuid4

import orjson
import pytest

from tune_tasks.errors import ConfigError, CorruptLog, Unavailable
from tune_tasks.events import CheckpointRef
from tune_tasks.store import Objects, checkpoints, fetch, open_objects, publish
from tune_tasks.store.memory import MemoryObjects
from tune_tasks.store.retry import Retrying
from tune_tasks.store.segment import fingerprint

FILES = {
    "weights.bin": bytes(range(256)) * 500,
    "manifest.json": b"the user's own",
    "config.json": b"{}",
    "optimizer/state 1.bin": b"momentum",
    "optimizer/deeper/.hidden": b"",
}


@pytest.fixture(params=["local", "memory", pytest.param("s3", marks=pytest.mark.s3)])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    urls = {"local": lambda: str(tmp_path / "store"), "memory": lambda: f"memory://{uuid4().hex}"}
    return open_objects(urls.get(request.param, lambda: request.getfixturevalue("s3"))())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / "saved" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "saved" / name).write_bytes(data)
    return tmp_path / "saved"


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_comes_back_as_it_was(objects: Objects, folder: Path, tmp_path: Path):
    reference = publish(objects, folder, "ckpt/000003/1/9")
    assert re.fullmatch(r"ckpt/000003/1/9-[0-9a-f]{8}", reference.key)
    assert reference.size == sum(map(len, FILES.values()))
    assert fetch(objects, reference, tmp_path / "work" / "restored") == tmp_path / "work" / "restored"
    assert content(tmp_path / "work" / "restored") == FILES
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["restored"]


def test_a_single_file_comes_back_in_a_folder(objects: Objects, folder: Path, tmp_path: Path):
    reference = publish(objects, folder / "weights.bin", "ckpt/0/1/1")
    assert content(fetch(objects, reference, tmp_path / "restored")) == {"weights.bin": FILES["weights.bin"]}


def test_two_of_one_step_do_not_touch_each_other(objects: Objects, folder: Path, tmp_path: Path):
    first = publish(objects, folder, "ckpt/0/1/1")
    (folder / "config.json").write_bytes(b"changed")
    second = publish(objects, folder, "ckpt/0/1/1")
    assert first.key != second.key
    assert content(fetch(objects, first, tmp_path / "first")) == FILES
    assert content(fetch(objects, second, tmp_path / "second"))["config.json"] == b"changed"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda objects, key: objects.replace(f"{key}/data/weights.bin", b"short"), "weights.bin: has 5 bytes"),
        (
            lambda objects, key: objects.replace(f"{key}/data/weights.bin", FILES["weights.bin"][:-1] + b"!"),
            "weights.bin: has 128000 bytes with digest",
        ),
        (lambda objects, key: objects.delete(f"{key}/data/weights.bin"), "weights.bin: is missing"),
        (lambda objects, key: objects.delete(f"{key}/manifest.json"), "manifest.json: is missing"),
        (lambda objects, key: objects.replace(f"{key}/manifest.json", b"{}"), "manifest.json: has digest"),
    ],
)
def test_what_is_not_as_the_log_says_is_not_handed_out(
    objects: Objects, folder: Path, tmp_path: Path, spoil, message: str
):
    reference = publish(objects, folder, "ckpt/0/1/1")
    spoil(objects, reference.key)
    with pytest.raises(CorruptLog, match=f"{re.escape(objects.url)}/{reference.key}/.*{message}"):
        fetch(objects, reference, tmp_path / "work" / "restored")
    assert list(tmp_path.glob("work/*")) == []


def test_what_was_put_behind_the_end_of_a_file_is_not_of_the_checkpoint(objects: Objects, folder: Path, tmp_path: Path):
    reference = publish(objects, folder, "ckpt/0/1/1")
    objects.replace(f"{reference.key}/data/weights.bin", FILES["weights.bin"] + b"!")
    assert content(fetch(objects, reference, tmp_path / "restored")) == FILES


def test_a_newer_format_is_refused(folder: Path, tmp_path: Path):
    objects = open_objects(f"memory://{uuid4().hex}")
    manifest = orjson.dumps({"format": 2, "files": []})
    objects.create("ckpt/x/manifest.json", manifest)
    with pytest.raises(CorruptLog, match="has format 2, this version reads up to 1"):
        fetch(objects, CheckpointRef(key="ckpt/x", digest=fingerprint(manifest), size=0), tmp_path / "restored")


def test_a_manifest_cannot_write_outside_its_folder(tmp_path: Path):
    objects = open_objects(f"memory://{uuid4().hex}")
    entry = {"name": "../../outside", "size": 1, "sha256": "0"}
    manifest = orjson.dumps({"format": 1, "files": [entry]})
    objects.create("ckpt/x/manifest.json", manifest)
    with pytest.raises(ConfigError, match="outside"):
        fetch(objects, CheckpointRef(key="ckpt/x", digest=fingerprint(manifest), size=1), tmp_path / "a" / "b")


def test_nothing_to_publish_is_an_error(tmp_path: Path):
    objects = open_objects(f"memory://{uuid4().hex}")
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no file"):
        publish(objects, tmp_path / "empty", "ckpt/0/1/1")
    with pytest.raises(ValueError, match="is not a file"):
        publish(objects, tmp_path / "absent", "ckpt/0/1/1")
    assert objects.list("") == []


def test_a_link_to_a_file_is_followed_and_one_to_a_folder_refused(folder: Path, tmp_path: Path):
    objects = open_objects(f"memory://{uuid4().hex}")
    (folder / "latest.bin").symlink_to(folder / "weights.bin")
    reference = publish(objects, folder, "ckpt/0/1/1")
    assert content(fetch(objects, reference, tmp_path / "one"))["latest.bin"] == FILES["weights.bin"]
    (folder / "round").symlink_to(folder)
    with pytest.raises(ValueError, match="round is a link to a folder"):
        publish(objects, folder, "ckpt/0/1/1")
    (folder / "round").unlink()
    (folder / "nowhere").symlink_to(folder / "absent")
    with pytest.raises(ValueError, match="nowhere is not a file"):
        publish(objects, folder, "ckpt/0/1/1")
    (folder / "nowhere").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(ValueError, match="pipe is not a file"):
        publish(objects, folder, "ckpt/0/1/1")


def test_a_target_that_is_in_use_is_left_alone(folder: Path, tmp_path: Path):
    objects = open_objects(f"memory://{uuid4().hex}")
    reference = publish(objects, folder, "ckpt/0/1/1")
    with pytest.raises(ValueError, match="is not empty"):
        fetch(objects, reference, folder)
    (tmp_path / "empty").mkdir()
    assert content(fetch(objects, reference, tmp_path / "empty")) == FILES


class Dying(MemoryObjects):
    """Stops working after some uploads, as a process that is killed does."""

    def __init__(self, uploads: int) -> None:
        super().__init__(uuid4().hex)
        self.left = uploads

    def upload(self, source: Path, key: str):
        if self.left == 0:
            raise Unavailable("killed")
        self.left -= 1
        return super().upload(source, key)


@pytest.mark.parametrize("uploads", range(len(FILES)))
def test_a_checkpoint_that_was_not_finished_has_no_manifest(folder: Path, uploads: int):
    store = Dying(uploads)
    with pytest.raises(Unavailable):
        publish(Retrying(store, 0.0), folder, "ckpt/0/1/1")
    assert not [key for key in store.list("") if key.endswith(checkpoints.MANIFEST) and "/data/" not in key]


class LosesReplies(MemoryObjects):
    """Every object lands, and every first reply is lost."""

    def create(self, key: str, data: bytes) -> bool:
        super().create(key, data)
        return False


def test_a_manifest_whose_reply_was_lost_is_published(folder: Path, tmp_path: Path):
    objects = Retrying(LosesReplies(uuid4().hex), 1.0)
    assert content(fetch(objects, publish(objects, folder, "ckpt/0/1/1"), tmp_path / "restored")) == FILES
