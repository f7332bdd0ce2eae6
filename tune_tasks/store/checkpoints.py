"""Checkpoints: the user's bytes, with a manifest that is written last.

A checkpoint exists only where the log names it; what lies here without a record is garbage. This module must not
load what a checkpoint holds, and must not hand out a byte that is not what its manifest says.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import orjson

from tune_tasks.errors import CorruptLog, TuneError
from tune_tasks.events import FORMAT, CheckpointRef
from tune_tasks.store.names import check_key
from tune_tasks.store.segment import fingerprint

if TYPE_CHECKING:
    from tune_tasks.store import Objects

MANIFEST = "manifest.json"
AT_ONCE = 8
"""Files of one checkpoint that are under way at once, each with a buffer of its own."""

_log = logging.getLogger(__name__)

A = TypeVar("A")
B = TypeVar("B")


def publish(objects: Objects, source: Path, prefix: str) -> CheckpointRef:
    """Copies a folder, or one file, to the store and returns what the log must say for it to exist.

    It goes below `prefix` and a random suffix, so that no attempt, not even one thought dead, writes into the
    checkpoint of another. Links to files are followed; empty folders are not kept. Raises `ValueError` where there is
    no file, or a link to a folder, a device, or a name that is no key.
    """
    files = _files(source)
    key = check_key(f"{prefix}-{uuid4().hex[:8]}")
    copied = _each(lambda item: objects.upload(item[1], _data(key, item[0])), files)
    entries = [
        {"name": name, "size": copy.size, "sha256": copy.digest} for (name, _), copy in zip(files, copied, strict=True)
    ]
    manifest = orjson.dumps({"format": FORMAT, "files": entries})
    if not objects.create(f"{key}/{MANIFEST}", manifest) and objects.read(f"{key}/{MANIFEST}") != manifest:
        raise CorruptLog(f"{objects.url}/{key}/{MANIFEST}: another checkpoint has this random name")
    return CheckpointRef(key=key, digest=fingerprint(manifest), size=sum(copy.size for copy in copied))


def fetch(objects: Objects, reference: CheckpointRef, target: Path) -> Path:
    """Copies a checkpoint to `target`, which must not be there yet (or be empty), and returns it as a folder.

    All of it appears at once, and only if every byte is as the log and the manifest say. Raises `CorruptLog` naming
    the file that is not.
    """
    if target.exists() and any(target.iterdir()):
        raise ValueError(f"target: {target} is not empty; a checkpoint is fetched into a folder of its own")
    entries = _entries(objects, reference)
    unfinished = target.with_name(f".{target.name}.{uuid4().hex}.part")
    try:
        unfinished.mkdir(parents=True)
        _each(lambda entry: _download(objects, reference, unfinished, *entry), entries)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def remove(objects: Objects, keys: Iterable[str]) -> None:
    """Deletes checkpoints that the log no longer names. What a store in trouble keeps is for the sweep.

    The manifest goes first, so that what is left of a checkpoint is one that was never finished.
    """
    for key in keys:
        try:
            objects.delete(f"{key}/{MANIFEST}")
            for name in objects.list(f"{key}/"):
                objects.delete(name)
        except TuneError as error:
            _log.warning("%s/%s could not be deleted, `tune-tasks gc` will do it: %s", objects.url, key, error)


def _data(key: str, name: str) -> str:
    """Where a file lies; in a folder of its own, since a user's file may be called like the manifest."""
    return check_key(f"{key}/data/{name}")


def _files(source: Path) -> list[tuple[str, Path]]:
    if source.is_dir():
        files = sorted((path.relative_to(source).as_posix(), path) for path in _walk(source))
    else:
        files = [(source.name, source)]
    for name, path in files:
        if not path.is_file():
            raise ValueError(f"checkpoint: {path} is not a file; a checkpoint is made of files and folders")
        check_key(name)
    if not files:
        raise ValueError(f"checkpoint: {source} holds no file; save something into it before it is reported")
    return files


def _walk(folder: Path) -> Iterable[Path]:
    """The files below a folder. A link to a folder could lead anywhere, and round in a circle: it is refused."""
    for parent, folders, names in os.walk(folder):
        for name in folders:
            if Path(parent, name).is_symlink():
                raise ValueError(f"checkpoint: {Path(parent, name)} is a link to a folder; copy the folder instead")
        yield from (Path(parent, name) for name in names)


def _entries(objects: Objects, reference: CheckpointRef) -> list[tuple[str, int, str]]:
    key = f"{reference.key}/{MANIFEST}"
    data = objects.read(key)
    if data is None:
        raise CorruptLog(f"{objects.url}/{key}: is missing, but the log names this checkpoint")
    if fingerprint(data) != reference.digest:
        raise CorruptLog(f"{objects.url}/{key}: has digest {fingerprint(data)}, but the log says {reference.digest}")
    manifest = orjson.loads(data)
    if manifest["format"] > FORMAT:
        raise CorruptLog(f"{objects.url}/{key}: has format {manifest['format']}, this version reads up to {FORMAT}")
    return [(entry["name"], entry["size"], entry["sha256"]) for entry in manifest["files"]]


def _download(objects: Objects, reference: CheckpointRef, folder: Path, name: str, size: int, digest: str) -> None:
    key, target = _data(reference.key, name), folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    copied = objects.download(key, target, size)
    if copied is None or copied != (size, digest):
        found = "is missing" if copied is None else f"has {copied.size} bytes with digest {copied.digest}"
        raise CorruptLog(
            f"{objects.url}/{key}: {found}, but the manifest of the checkpoint says {size} bytes with digest {digest}"
        )


def _each(work: Callable[[A], B], items: list[A]) -> list[B]:
    """Does the work on all items, several at once where there are several. Raises what the first failure raised."""
    if len(items) == 1:
        return [work(items[0])]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(work, items))
