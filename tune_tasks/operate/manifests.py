"""Reads the manifests of checkpoints and promoted models, whatever became of them.

This module must not trust a manifest that is not the one that the log names.
"""

from __future__ import annotations

from typing import NamedTuple

import orjson

from tune_tasks.errors import CorruptLog
from tune_tasks.events import FORMAT, CheckpointRef
from tune_tasks.store import Objects
from tune_tasks.store.checkpoints import MANIFEST
from tune_tasks.store.segment import fingerprint
from tune_tasks.study import StudyState

MODEL = "model.json"


class File(NamedTuple):
    """A file of a checkpoint: its name below the checkpoint's key, its size in bytes and its SHA-256."""

    name: str
    size: int
    digest: str


def read_manifest(objects: Objects, reference: CheckpointRef) -> tuple[bytes, list[File]]:
    """The manifest and the files that it names. Raises `CorruptLog` where it is not what the log says."""
    data = objects.read(f"{reference.key}/{MANIFEST}")
    if data is None:
        raise CorruptLog("is missing, but the log names it")
    if fingerprint(data) != reference.digest:
        raise CorruptLog(f"has SHA-256 {fingerprint(data)}, but the log says {reference.digest}")
    try:
        manifest = orjson.loads(data)
        if manifest["format"] > FORMAT:
            raise CorruptLog(f"has format {manifest['format']}, and this version of tune_tasks reads up to {FORMAT}")
        return data, [File(f"data/{file['name']}", file["size"], file["sha256"]) for file in manifest["files"]]
    except (orjson.JSONDecodeError, LookupError, TypeError) as error:
        raise CorruptLog(f"has the right digest, but is no manifest: {type(error).__name__}: {error}") from None


def references(state: StudyState) -> dict[str, CheckpointRef]:
    """The checkpoints and the promoted models that the log names, by key."""
    return {**_checkpoints(state), **_models(state)}


def evaluations(state: StudyState) -> dict[str, str]:
    """The SHA-256 of each object with the values that single examples had, which the log names, by its key."""
    measured = (row for row in state.steps.values() if row.get("place") and "seed" in row)
    return {str(row["place"]): str(row["digest"]) for row in measured}


def _models(state: StudyState) -> dict[str, CheckpointRef]:
    """By key. A record has the URL of the study where it was promoted, also in a copy of the study."""
    promoted = [model for model in state.promotions if model.get("promoted") and model.get("path")]
    keys = [str(model["path"]).removeprefix(str(model["study"])).strip("/") for model in promoted]
    return {
        key: CheckpointRef(key=key, digest=str(model["digest"]), size=0)
        for key, model in zip(keys, promoted, strict=True)
        if key.startswith("models/")
    }


def _checkpoints(state: StudyState) -> dict[str, CheckpointRef]:
    """By key, since a trial that goes on from another's checkpoint shares it."""
    return {reference.key: reference for trial in state.trials for _, reference in trial.checkpoints}
