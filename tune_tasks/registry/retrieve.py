"""Brings the files of a champion to this machine: as its study has them, or else the registry.

The study of a champion may have been cleared away long ago, while the registry still serves what it gave. This module
must not hand out files that are not what the champion was promoted with, where that is known.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson

from tune_tasks.errors import ConfigError, CorruptLog
from tune_tasks.events import FORMAT, CheckpointRef
from tune_tasks.registry.artifact import Champion
from tune_tasks.registry.publish import MODEL
from tune_tasks.registry.versions import Registry
from tune_tasks.store import Objects, fetch
from tune_tasks.store.checkpoints import MANIFEST
from tune_tasks.store.segment import fingerprint


def bring_champion(
    study: Objects | None, registry: Registry | None, name: str, champion: Champion, target: Path
) -> Path:
    """Brings the champion's files below `target` and returns their folder; `study` has the objects of its study.

    Raises `CorruptLog` where they are gone, or are not what was promoted; `Unavailable` where nobody answered.
    """
    try:
        return fetch(*_place(study, champion), target / "study")
    except (CorruptLog, ConfigError) as error:
        if registry is None:
            raise CorruptLog(str(error)) from None
        told = str(error)
    found = registry.bring(name, champion.version, target / "registry")
    if champion.digest and folder_digest(found) != champion.digest:
        raise CorruptLog(f"{told}; and what {registry.url} has of version {champion.version} is something else")
    return found


def champion_params(study: Objects | None, champion: Champion) -> dict[str, Any]:
    """The parameters that the champion was trained with, by its model.json; none where that is gone."""
    try:
        objects, reference = _place(study, champion)
        found = orjson.loads(objects.read(f"{reference.key}/{MODEL}") or b"{}").get("params", {})
    except (CorruptLog, ConfigError, orjson.JSONDecodeError, AttributeError):
        return {}
    return dict(found)


def folder_digest(folder: Path) -> str:
    """The SHA-256 that the manifest of these files has, written as `store.checkpoints.publish` writes it."""
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    entries = [{"name": name, "size": path.stat().st_size, "sha256": _digest(path)} for name, path in files]
    return fingerprint(orjson.dumps({"format": FORMAT, "files": entries}))


def _place(study: Objects | None, champion: Champion) -> tuple[Objects, CheckpointRef]:
    """Where the study has the champion's files; where nobody knows their digest, the manifest there is believed."""
    if study is None or not champion.path or not champion.study or not champion.path.startswith(champion.study):
        raise CorruptLog(f"version {champion.version} names no study that has its files")
    key = champion.path.removeprefix(champion.study).strip("/")
    digest = champion.digest or fingerprint(study.read(f"{key}/{MANIFEST}") or b"")
    return study, CheckpointRef(key=key, digest=digest, size=0)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
