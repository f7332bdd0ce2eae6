"""The target `folder`: a copy of the model in a directory or a bucket, and a pointer to it that another system watches.

<url>/<name>/<version>/ has the files, model.json and the manifest, and <url>/<name>/current.json says which version
counts. The pointer is replaced last, when the copy is whole. This module must not delete a version: whoever reads the
one before may still be at it.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, field_validator

from tune_tasks.deployment import CheckFailed, Checks, Model, Outcome, Standing, short
from tune_tasks.deployment.loading import load, through_json
from tune_tasks.errors import ConfigError, CorruptLog
from tune_tasks.store import Objects, open_objects
from tune_tasks.store.checkpoints import MANIFEST
from tune_tasks.store.names import check_key, shown_url, split_url
from tune_tasks.store.segment import fingerprint

POINTER = "current.json"


class FolderTarget(BaseModel):
    """Its options: `url`, a local folder or any URL that a store may have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str

    @field_validator("url")
    @classmethod
    def _is_a_place(cls, url: str) -> str:
        split_url(url)
        return url.rstrip("/") if "://" in url else str(Path(url).expanduser().resolve())

    def deploy(self, model: Model, checks: Checks) -> Outcome:
        """Copies the version, checks the copy, and then points to it. See `Target.deploy`."""
        check_key(f"{model.name}/{model.version}")
        objects = open_objects(f"{self.url}/{model.name}")
        self._copy(model, objects)
        copied = replace(model, path=f"{self.url}/{model.name}/{model.version}")
        try:
            _check(copied, objects, checks)
        except CheckFailed as failed:
            return Outcome(took=False, reason=str(failed), url=objects.url)
        told = _told(objects)
        if told is None or told.get("version") != model.version or told.get("digest") != model.digest:
            before = told.get("version") if told else None
            objects.replace(POINTER, orjson.dumps(_pointer(copied, before), option=orjson.OPT_INDENT_2))
        return Outcome(took=True, reason=f"copied, checked, and {POINTER} names it", url=objects.url)

    def undeploy(self, name: str) -> None:
        """Removes the pointer; the copies stay. See `Target.undeploy`."""
        open_objects(f"{self.url}/{check_key(name)}").delete(POINTER)

    def standing(self, name: str) -> Standing | None:
        """Reads the pointer. See `Target.standing`."""
        objects = open_objects(f"{self.url}/{check_key(name)}")
        told = _told(objects)
        if told is None:
            return None
        whole = objects.read(f"{told.get('version')}/{MANIFEST}")
        digest = told.get("digest")
        settled = whole is not None and fingerprint(whole) == digest
        return Standing(version=told.get("version"), digest=digest, settled=settled, url=objects.url)

    def _copy(self, model: Model, objects: Objects) -> None:
        """Copies the files below the version, and the manifest after them. A copy that is whole is not made again."""
        source, reference = model.place
        manifest = source.read(f"{reference.key}/{MANIFEST}")
        if manifest is None or fingerprint(manifest) != model.digest:
            raise CorruptLog(
                f"{shown_url(model.path)}/{MANIFEST}: is not the one that was promoted; nothing was copied"
            )
        if objects.read(f"{model.version}/{MANIFEST}") == manifest:
            return
        with tempfile.TemporaryDirectory(prefix="tune-tasks-") as scratch:
            folder = model.fetch(Path(scratch) / "model")
            for entry in orjson.loads(manifest)["files"]:
                copied = objects.upload(folder / entry["name"], f"{model.version}/data/{entry['name']}")
                if copied != (entry["size"], entry["sha256"]):
                    raise CorruptLog(f"{objects.url}/{model.version}/data/{entry['name']}: changed while it was copied")
        told = source.read(f"{reference.key}/model.json")
        if told is not None:
            objects.replace(f"{model.version}/model.json", told)
        objects.replace(f"{model.version}/{MANIFEST}", manifest)


def _check(copied: Model, objects: Objects, checks: Checks) -> None:
    """Reads the copy back, every byte, and asks it where the study says how it is loaded. Raises `CheckFailed`."""
    with tempfile.TemporaryDirectory(prefix="tune-tasks-") as scratch:
        try:
            if copied.loader is None or (checks.example is None and checks.check is None):
                copied.fetch(Path(scratch) / "model")
                return
            model = load(copied, Path(scratch))
        except CorruptLog:
            # A damaged copy is made anew by the next try: without its manifest it is none.
            objects.delete(f"{copied.version}/{MANIFEST}")
            raise
        except ConfigError:
            raise
        except Exception as error:
            raise CheckFailed(f"promotion.loader raised {short(error)}") from error
        checks.ask(through_json(model))


def _pointer(copied: Model, before: str | None) -> dict[str, Any]:
    return {
        "name": copied.name,
        "version": copied.version,
        "path": shown_url(copied.path),
        "digest": copied.digest,
        "loader": copied.loader,
        "previous": before,
    }


def _told(objects: Objects) -> dict[str, Any] | None:
    data = objects.read(POINTER)
    try:
        told = orjson.loads(data) if data is not None else None
    except orjson.JSONDecodeError:
        told = None
    return told if isinstance(told, dict) else None
