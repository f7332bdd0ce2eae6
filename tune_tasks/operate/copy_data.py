"""Copies what a log names beside itself: checkpoints and models with their manifests, and what the trials printed.

Every byte is verified against the manifest on its way. This module must not delete or overwrite a checkpoint.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

from tune_tasks.errors import ConfigError, CorruptLog
from tune_tasks.events import CheckpointRef
from tune_tasks.operate.keys import Folder
from tune_tasks.operate.manifests import MODEL, File, read_manifest
from tune_tasks.store import Entry, Objects
from tune_tasks.store.checkpoints import MANIFEST
from tune_tasks.store.segment import fingerprint


def send_folder(old: Objects, new: Objects, reference: CheckpointRef, there: Folder, pool: Executor) -> list[int]:
    """Copies a checkpoint or a model and returns the sizes of the files that were sent, in bytes.

    `there` is what the target has of it. The manifest comes last, so a folder that has it is complete. Raises
    `CorruptLog` where the source is not what its manifest says.
    """
    key = f"{reference.key}/{MANIFEST}"
    try:
        manifest, files = read_manifest(old, reference)
    except CorruptLog as error:
        raise CorruptLog(f"{old.url}/{key}: {error}") from None
    missing = [file for file in files if file.name not in there.files or there.files[file.name].size != file.size]
    model = reference.key.startswith("models/")
    if MANIFEST in there.files and not missing and (MODEL in there.files or not model):
        return []
    list(pool.map(lambda file: _send_file(old, new, reference.key, file), missing))
    if model:
        _send_record(old, new, f"{reference.key}/{MODEL}")
    if not new.create(key, manifest) and new.read(key) != manifest:
        raise ConfigError(f"copy: {new.url}/{key} is another checkpoint's; copy to another URL")
    return [file.size for file in missing]


def send_object(old: Objects, new: Objects, key: str, digest: str) -> int:
    """Copies one small object that the log names with its digest, and returns its size in bytes."""
    data = old.read(key)
    if data is None or fingerprint(data) != digest:
        found = "is missing" if data is None else f"has SHA-256 {fingerprint(data)}"
        raise CorruptLog(f"{old.url}/{key}: {found}, the log says SHA-256 {digest}")
    new.create(key, data)
    return len(data)


def send_output(old: Objects, new: Objects, there: Iterable[Entry], pool: Executor) -> list[int]:
    """Copies what the trials printed, where the target does not have as much of it; returns the sizes in bytes."""
    known = {entry.key: entry.size for entry in there}
    changed = [entry for entry in old.entries("logs/") if known.get(entry.key) != entry.size]
    list(pool.map(lambda entry: _send_text(old, new, entry), changed))
    return [entry.size for entry in changed]


def _send_file(old: Objects, new: Objects, folder: str, file: File) -> None:
    key = f"{folder}/{file.name}"
    with _scratch() as path:
        copied = old.download(key, path, file.size)
        if copied is None or copied != (file.size, file.digest):
            found = "is missing" if copied is None else f"has {copied.size} bytes with SHA-256 {copied.digest}"
            told = f"the manifest says {file.size} bytes with SHA-256 {file.digest}"
            raise CorruptLog(f"{old.url}/{key}: {found}, {told}")
        new.upload(path, key)


def _send_record(old: Objects, new: Objects, key: str) -> None:
    data = old.read(key)
    if data is None:
        raise CorruptLog(f"{old.url}/{key}: is missing, but the log names this model")
    new.replace(key, data)


def _send_text(old: Objects, new: Objects, entry: Entry) -> None:
    with _scratch() as path:
        if old.download(entry.key, path, entry.size) is not None:
            new.upload(path, entry.key)


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tune-tasks-") as folder:
        yield Path(folder) / "file"
