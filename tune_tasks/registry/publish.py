"""The model's folder below the study: the checkpoint's files, their manifest, and model.json for the tasks after this.

It is a copy, so that checkpoints may be cleared away. This module must not know the registry.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import orjson

from tune_tasks.errors import CorruptLog
from tune_tasks.events import CheckpointRef
from tune_tasks.registry.artifact import ModelArtifact
from tune_tasks.store import Objects, fetch, publish
from tune_tasks.store.checkpoints import MANIFEST
from tune_tasks.store.segment import fingerprint

MODEL = "model.json"


def bring(objects: Objects, checkpoint: CheckpointRef | None, model: ModelArtifact, target: Path) -> Path:
    """Brings the model's files to this machine, checked against their digests, and returns their folder.

    Without a checkpoint the model is its parameters, in `params.json`.
    """
    if checkpoint is not None:
        return fetch(objects, checkpoint, target)
    target.mkdir()
    (target / "params.json").write_bytes(orjson.dumps(model.params, option=orjson.OPT_INDENT_2))
    return target


def publish_model(
    objects: Objects, model: ModelArtifact, folder: Path, checkpoint: CheckpointRef | None
) -> ModelArtifact:
    """Copies the model's files to their folder below the study, and returns the artifact with its path and digest.

    Called again for the same step key it finds the complete copy and makes no other.
    """
    key = hashlib.sha256(model.key.encode()).hexdigest()[:8]
    prefix = f"models/{model.trial:06d}-{model.step:06d}-{key}"
    found = _complete(objects, prefix)
    if found is None:
        copy = publish(objects, folder, prefix)
        found = copy.key, copy.digest
    place, digest = found
    if (
        checkpoint is not None and digest != checkpoint.digest
    ):  # the manifest of a copy is the original's, byte for byte
        raise CorruptLog(f"{objects.url}/{place}: is not a copy of checkpoint {checkpoint.key}: their manifests differ")
    return model.model_copy(update={"path": f"{objects.url}/{place}", "digest": digest})


def write_model(objects: Objects, model: ModelArtifact) -> ModelArtifact:
    """Writes model.json, unless it is there; returns the artifact that it holds, which is this one's first edition."""
    key = f"{str(model.path).removeprefix(objects.url).strip('/')}/{MODEL}"
    if objects.create(key, model.to_json()):
        return model
    return ModelArtifact.model_validate_json(objects.read(key) or b"")


def _complete(objects: Objects, prefix: str) -> tuple[str, str] | None:
    """Where the copy lies that an earlier try finished, and the digest of its manifest, which is written last."""
    for key in objects.list(f"{prefix}-"):
        place, _, name = key.rpartition("/")
        if name == MANIFEST and place.count("/") == 1:
            return place, fingerprint(objects.read(key) or b"")
    return None
