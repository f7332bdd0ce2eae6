"""kill -9 at every write of a promotion, in the store and in the registry: the champion is the old one or the new one.

Each try is a fork of its own that counts its writes and kills itself at one of them, before it or after it. Of each
kind the first and the last are tried, after it; with TUNE_TASKS_EVERY_WRITE=1 all are.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.mlflow_database import new_database

STORE = ("create", "replace", "upload", "delete")
REGISTRY = (
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "create_registered_model",
    "create_model_version",
    "set_registered_model_alias",
)


def train(config: dict[str, Any]) -> None:
    folder = tt.get_context().folder
    (folder / "model.json").write_text(json.dumps(config["x"]))
    tt.report({"loss": config["x"]}, checkpoint=folder)


def evaluate(folder: Path) -> dict[str, float]:
    return {"loss": float((folder / "model.json").read_text())}


def spec(root: Path, name: str, x: float) -> tt.StudySpec:
    return tt.StudySpec(
        name=name,
        store=str(root / "studies"),
        objective=train,
        metric="loss",
        mode="min",
        space={"x": {"type": "float", "low": x, "high": x + 0.5}},
        sampler="random",
        budget={"trials": 2},
        execution={"runner": "inline"},
        promotion={
            "model": "tiny",
            "owner": "tests",
            "registry": f"sqlite:///{root / 'mlflow.db'}",
            "evaluate": f"{__name__}:evaluate",
            "candidates": 1,
        },
        tracking=[],
    )


def forked(work: Callable[[], Any]) -> tuple[int, Any]:
    """Runs `work` in a fork; gives its exit code, -9 where it was killed, and what it returned."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def child(pipe: Connection) -> None:
        pipe.send(work())

    process = context.Process(target=child, args=(theirs,))
    process.start()
    theirs.close()
    try:
        result = ours.recv()
    except EOFError:
        result = None
    process.join(120)
    return process.exitcode or 0, result


def promote(root: Path, kill: int | None = None) -> dict[str, Any]:
    """Promotes the second study; with `kill`, only as far as that write. Gives the writes that there were."""
    import mlflow

    from tune_tasks.store.local import LocalObjects

    writes: list[str] = []

    def at(name: str) -> None:
        writes.append(name)
        if len(writes) == kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(owner: type, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            at(f"before {name}")
            result = real(*args, **options)
            at(f"after {name}")
            return result

        setattr(owner, name, call)

    for name in STORE:
        watched(LocalObjects, name)
    for name in REGISTRY:
        watched(mlflow.MlflowClient, name)
    model = tt.promote_best(tt.open_study(spec(root, "second", 0.0)))
    return {"promoted": model.promoted, "version": model.version, "writes": writes}


def chosen(names: list[str]) -> list[int]:
    """The writes to be killed at, from 1."""
    if "TUNE_TASKS_EVERY_WRITE" in os.environ:
        return list(range(1, len(names) + 1))
    last, after = len(names) - 1, [name for name in names if name.startswith("after")]
    return sorted({i + 1 for name in after for i in (names.index(name), last - names[::-1].index(name))})


def look(root: Path) -> dict[str, Any]:
    """Who the champion is by the alias, whether its files are all there, and how many versions there are."""
    import mlflow

    from tune_tasks.registry import Registry

    uri = f"sqlite:///{root / 'mlflow.db'}"
    champion = Registry(uri).champion("tiny", "champion")
    client = mlflow.MlflowClient(uri, registry_uri=uri)
    versions = [int(version.version) for version in client.search_model_versions("name = 'tiny'")]
    path = Path(str(champion.path)) if champion else Path("/")
    return {
        "version": champion.version if champion else None,
        "whole": (path / "model.json").exists() and (path / "manifest.json").exists(),
        "versions": sorted(versions),
    }


@pytest.mark.slow
def test_a_promotion_that_is_killed_at_any_write_leaves_a_champion_and_is_finished_by_the_next_try(
    tmp_path: Path,
) -> None:
    root, kept = tmp_path / "root", tmp_path / "kept"
    root.mkdir()
    new_database(root)

    def prepare() -> bool:
        for name, x in (("first", 1.0), ("second", 0.0)):
            study = tt.tune(spec(root, name, x))
            if name == "first":
                assert tt.promote_best(study).version == "1"
        return True

    assert forked(prepare) == (0, True)
    shutil.copytree(root, kept)
    code, undisturbed = forked(lambda: promote(root))
    assert (code, undisturbed["promoted"], undisturbed["version"]) == (0, True, "2")
    names = undisturbed["writes"]
    assert {name.split()[1] for name in names} >= {"create", "create_model_version", "set_registered_model_alias"}
    for kill in chosen(names):
        shutil.rmtree(root)
        shutil.copytree(kept, root)
        assert forked(lambda kill=kill: promote(root, kill))[0] == -signal.SIGKILL
        told = f"killed {names[kill - 1]}, write {kill}"
        _, found = forked(lambda: look(root))
        assert found["version"] in {"1", "2"}, told
        assert found["whole"], told
        code, again = forked(lambda: promote(root))
        assert (code, again["promoted"], again["version"]) == (0, True, "2"), told
        assert forked(lambda: look(root))[1] == {"version": "2", "whole": True, "versions": [1, 2]}, told
