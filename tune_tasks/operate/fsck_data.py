"""Verifies what the log names beside itself, checkpoints and promoted models, and finds what nothing names.

Data is read through file by file and hashed, so it costs disk for the files that are under way and no more. This
module must not delete anything: what is left over is for `gc`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

import orjson

from tune_tasks.errors import CorruptLog
from tune_tasks.events import CheckpointRef
from tune_tasks.operate.findings import Finding, Severity
from tune_tasks.operate.keys import Contents, Folder, sort_entries
from tune_tasks.operate.manifests import MODEL, File, read_manifest
from tune_tasks.operate.sizes import in_words
from tune_tasks.store import Entry, Objects
from tune_tasks.store.checkpoints import AT_ONCE, MANIFEST
from tune_tasks.store.segment import fingerprint

_CHECKPOINT_LOST = "bring it back from a copy or a backup; without it a trial goes on from an older checkpoint, or anew"
_MODEL_LOST = "bring it back from a copy, a backup or the registry, or promote again under another run"
_EVALUATION_LOST = "bring it back from a copy or a backup; a promotion that is not decided yet needs another run's name"
_MAYBE = "mend the log first: a segment that cannot be read may have discarded it"
_SWEPT = "nothing, or tune-tasks gc, which removes it after its grace period"
_KEPT = "move it elsewhere if it is yours; tune_tasks leaves it alone"


@dataclass(frozen=True, slots=True)
class DataCheck:
    """What was found among the data; `files` and `size` (bytes) count what was read through."""

    findings: tuple[Finding, ...]
    files: int
    size: int


def check_data(
    objects: Objects,
    contents: Contents,
    references: dict[str, CheckpointRef],
    *,
    read: bool,
    certain: bool,
    advance: Callable[[int, int], None],
) -> DataCheck:
    """Verifies the folders that the log names: manifests and sizes, and with `read` every byte.

    Not `certain`: the log cannot be read in full, so what is missing may have been discarded. `advance` is told how
    many of how many are done.
    """
    findings: list[Finding] = []
    jobs: list[Callable[[Path], tuple[list[Finding], int]]] = []
    for done, reference in enumerate(references.values()):
        advance(done, len(references))
        folder = _folder(objects, contents, reference.key)
        told, files = _check_folder(objects, reference, folder, certain=certain)
        findings += told
        if read:
            jobs += [partial(_check_bytes, objects, reference, file) for file in files]
    read_through = 0
    with tempfile.TemporaryDirectory(prefix="tune-tasks-") as scratch, ThreadPoolExecutor(AT_ONCE) as pool:
        for done, (found, size) in enumerate(pool.map(lambda job: job(Path(scratch)), jobs)):
            advance(done, len(jobs))
            findings += found
            read_through += size
    return DataCheck(tuple(findings), len(jobs), read_through)


def check_evaluations(objects: Objects, contents: Contents, named: dict[str, str], *, read: bool) -> Iterator[Finding]:
    """Verifies the values of single examples that promotions measured, and finds those that no event names."""
    for key, digest in named.items():
        data = objects.read(key) if read or key not in contents.evaluations else None
        if data is None and (read or key not in contents.evaluations):
            yield Finding("error", key, "is missing, but the log names it", _EVALUATION_LOST)
        elif data is not None and fingerprint(data) != digest:
            told = f"has SHA-256 {fingerprint(data)}, the log says {digest}"
            yield Finding("error", key, told, _EVALUATION_LOST)
    for key in contents.evaluations:
        if key not in named:
            yield Finding("note", key, "is a measurement that was never recorded, or is on the way", _SWEPT)


def check_leftovers(
    contents: Contents, unfinished: list[Entry], named: set[str], recorded: set[str]
) -> Iterator[Finding]:
    """Finds what nothing names any more, or not yet, and what is none of ours.

    `recorded` are the checkpoints that the log names or ever named.
    """
    for key, folder in {**contents.checkpoints, **contents.models}.items():
        if key not in named:
            yield Finding("note", key, f"{_left(folder, recorded)} ({in_words(folder.size)})", _SWEPT)
    for entry in contents.probes:
        yield Finding("note", entry.key, "is what a probe of the store left when it was killed", _SWEPT)
    for entry in unfinished:
        yield Finding("note", entry.key, f"is what a killed writer left unfinished ({in_words(entry.size)})", _SWEPT)
    for entry in contents.unknown:
        severity: Severity = "warning" if entry.key.startswith("log/") else "note"
        yield Finding(severity, entry.key, f"is nothing that tune_tasks writes ({in_words(entry.size)})", _KEPT)


def _left(folder: Folder, recorded: set[str]) -> str:
    if folder.key.startswith("models/"):
        return "is a model that no promotion names"
    if folder.key in recorded:
        return "is a checkpoint that the log names no more"
    if MANIFEST in folder.files:
        return "is a checkpoint that the log does not name: its attempt was killed, or its record is on the way"
    return "is an upload that never finished, or is under way"


def _folder(objects: Objects, contents: Contents, key: str) -> Folder:
    """The folder as it was listed; listed again where it was not there then, as it may be newer than the listing."""
    known = {**contents.checkpoints, **contents.models}
    if key not in known:
        newer = sort_entries(objects.entries(f"{key}/"))
        known = {**newer.checkpoints, **newer.models}
    return known.get(key, Folder(key, {}))


def _check_folder(
    objects: Objects, reference: CheckpointRef, folder: Folder, *, certain: bool
) -> tuple[list[Finding], list[File]]:
    """Verifies the manifest, and the sizes by the listing; returns the files that are worth reading."""
    severity: Severity = "error" if certain else "warning"
    remedy = _remedy(reference.key) if certain else _MAYBE
    try:
        _, files = read_manifest(objects, reference)
    except CorruptLog as error:
        return [Finding(severity, f"{reference.key}/{MANIFEST}", str(error), remedy)], []
    findings, good = [], []
    for file in files:
        entry, key = folder.files.get(file.name), f"{reference.key}/{file.name}"
        if entry is None:
            findings.append(Finding(severity, key, f"is missing; the manifest says {file.size} bytes", remedy))
        elif entry.size != file.size:
            told = f"has {entry.size} bytes, the manifest says {file.size}"
            findings.append(Finding(severity, key, told, remedy))
        else:
            good.append(file)
    findings += _check_others(objects, reference, folder, {file.name for file in files})
    return findings, good


def _check_others(objects: Objects, reference: CheckpointRef, folder: Folder, named: set[str]) -> Iterator[Finding]:
    """Verifies a model's own record, and finds files that the manifest does not name."""
    model = reference.key.startswith("models/")
    if model:
        key = f"{reference.key}/{MODEL}"
        digest = _model_digest(objects.read(key))
        if digest != reference.digest:
            told = f"says that the manifest has SHA-256 {digest}, the log says {reference.digest}"
            yield Finding("error", key, told if digest else "is missing, or no record of a model", _MODEL_LOST)
    for name in sorted({*folder.files} - named - {MANIFEST} - ({MODEL} if model else set())):
        yield Finding("warning", f"{reference.key}/{name}", "is not in the manifest of its folder", _KEPT)


def _model_digest(data: bytes | None) -> str:
    try:
        return str(orjson.loads(data or b"")["digest"])
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return ""


def _check_bytes(objects: Objects, reference: CheckpointRef, file: File, scratch: Path) -> tuple[list[Finding], int]:
    """Reads a file through and compares its digest."""
    key, target = f"{reference.key}/{file.name}", scratch / uuid4().hex
    try:
        copied = objects.download(key, target, file.size)
    finally:
        target.unlink(missing_ok=True)
    if copied is None:
        told = "was deleted while it was being verified; verify again"
        return [Finding("error", key, told, _remedy(reference.key))], 0
    if copied.digest == file.digest:
        return [], copied.size
    told = f"has SHA-256 {copied.digest}, the manifest says {file.digest}"
    return [Finding("error", key, told, _remedy(reference.key))], copied.size


def _remedy(key: str) -> str:
    return _MODEL_LOST if key.startswith("models/") else _CHECKPOINT_LOST
