"""Where a champion comes from: its folder, the digest that it must have, its loader and the loader's code.

This module must not choose a version.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import orjson

from tune_tasks.deployment import Model
from tune_tasks.errors import ConfigError, CorruptLog
from tune_tasks.execution.environment import worker_env
from tune_tasks.registry import Champion, Champions
from tune_tasks.registry.package import local_code
from tune_tasks.registry.publish import MODEL
from tune_tasks.store import open_objects
from tune_tasks.store.names import shown_url
from tune_tasks.studies import Study

_LARGEST = 8 << 20
"""Bytes of code that go to the replicas with the application; what is more belongs into a package."""


def model_of(study: Study, held: Champions, champion: Champion, name: str) -> Model:
    """The champion as targets take it.

    The code is what the registry has with the version, and without a registry what lies beside the spec. Raises
    `ConfigError` for a version that no study of ours made, and `CorruptLog` where its folder is not what it was.
    """
    if champion.path is None:
        raise ConfigError(
            f"deploy: version {champion.version} of {held.model} was not promoted by a study, so where its files lie "
            "is not known; promote a model, or roll back to one that was"
        )
    shown = shown_url(study.store)
    path = champion.path if not champion.path.startswith(shown) else study.store + champion.path.removeprefix(shown)
    loader, code = study.spec.promotion.loader, {}
    if loader is not None and held.registry is not None:
        with tempfile.TemporaryDirectory(prefix="tune-tasks-") as scratch:
            loader, folder = held.registry.code(held.model, champion.version, Path(scratch))
            code = _files([folder] if folder else [], whole=True)
    elif loader is not None:
        code = _files(local_code(loader, study.folder))
    size = sum(len(data) for data in code.values())
    if size > _LARGEST:
        raise ConfigError(f"promotion.loader: its code has {size} bytes, at most {_LARGEST} travel; install it instead")
    return Model(
        name=name,
        version=champion.version,
        path=path,
        digest=_digest(held, champion, path),
        loader=loader,
        code=code,
        runtime_env=worker_env(study.spec, study.folder),
    )


def _digest(held: Champions, champion: Champion, path: str) -> str:
    """The digest of the manifest: the registry's, or the ledger's; where neither knows it, that in model.json."""
    known = [reign.digest for reign in held.history() if reign.version == champion.version and reign.digest]
    if champion.digest or known:
        return champion.digest or known[-1]
    folder, _, key = path.rpartition("/")
    told = open_objects(folder).read(f"{key}/{MODEL}")
    digest = orjson.loads(told).get("digest") if told is not None else None
    if digest is None:
        raise CorruptLog(f"{shown_url(path)}/{MODEL}: is missing, or says no digest; the model cannot be checked")
    return str(digest)


def _files(roots: list[Path], *, whole: bool = False) -> dict[str, bytes]:
    """The bytes of files and folders by relative path; `whole`: of what is in the folder, without its name."""
    found: dict[str, bytes] = {}
    for root in roots:
        base = root if whole else root.parent
        files = [root] if root.is_file() else [path for path in root.rglob("*") if path.is_file()]
        kept = [path for path in files if "__pycache__" not in path.parts]
        found |= {path.relative_to(base).as_posix(): path.read_bytes() for path in kept}
    return found
