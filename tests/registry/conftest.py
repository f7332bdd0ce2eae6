"""A finished study with checkpoints, whose loader lies in a folder of the user's own."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.histories import Story
from tests.mlflow_database import new_database
from tune_tasks.events import Gate, Promoting
from tune_tasks.registry import FOLDER, Champions, ModelArtifact, Registry, candidate, carry_out
from tune_tasks.spec import StudySpec
from tune_tasks.store import Objects, open_objects, publish

SERVING = '''
"""The loader of a tiny model."""
import json

from arithmetic import scaled


class Model:
    def __init__(self, weight):
        self.weight = weight

    def predict(self, rows):
        return [scaled(self.weight, row) for row in rows]


def load(folder):
    return Model(json.loads((folder / "weights" / "weight.json").read_text()))


def empty(folder):
    return None


def unloadable(folder):
    import elsewhere

    return elsewhere
'''


class Promotion:
    """A study below a folder, and the promotion of its best trial, as a promote step would have it."""

    def __init__(self, root: Path, code: Path, value: float, **promotion: Any) -> None:
        self.code = str(code)
        self.objects: Objects = open_objects(str(root))
        options = {"loader": "serving:load", **promotion}
        spec = StudySpec(
            name=root.name,
            objective="serving:train",
            metric="loss",
            mode="min",
            space={"x": {"type": "float", "low": 0.0, "high": 1.0}},
            promotion={"model": "tiny", **options},
            data="data of May",
        )
        self.history = Story(spec, study=f"id-of-{root.name}")
        self.history.state.code, self.history.state.parent = "4f2a", "memory://parent"
        self.history.open()
        self.trial(root, value + 1)
        self.trial(root, value)

    def trial(self, root: Path, value: float) -> None:
        number = self.history.propose({"x": 0.5, "seed": 7}, budget=1, last=True)
        folder = root.parent / "saved" / root.name / str(number)
        (folder / "weights").mkdir(parents=True)
        (folder / "weights" / "weight.json").write_text(json.dumps(value))
        (folder / "notes.txt").write_text("trained by a test")
        reference = publish(self.objects, folder, f"ckpt/{number}")
        self.history.train(number, [{"loss": value}], checkpoint=reference)

    def champions(self, registry: Registry | None) -> Champions:
        store = self.objects.url.rpartition("/")[0]
        return Champions(open_objects(f"{store}/{FOLDER}"), "tiny", "champion", registry)

    def pickle(self, folder: Path) -> None:
        """A better trial whose checkpoint is pickled, under a name that does not say so."""
        folder.mkdir(exist_ok=True)
        (folder / "weights.bin").write_bytes(pickle.dumps({"weight": Path("x")}, protocol=2))
        number = self.history.propose({"x": 0.5}, budget=1, last=True)
        reference = publish(self.objects, folder / "weights.bin", f"ckpt/{number}")
        self.history.train(number, [{"loss": 0.0}], checkpoint=reference)

    def decision(self, registry: Registry | None, key: str = "main/promote") -> Promoting:
        best = candidate(self.history.state)
        champion, ledger = self.champions(registry).current(time=2000.0)
        return Promoting(
            key=key,
            trial=best.trial,
            step=best.step,
            value=best.value,
            champion=champion.model_dump(mode="json") if champion else None,
            position=12,
            ledger=ledger,
            reason="decided by a test",
            evaluation={"test_loss": best.value / 2},
            bounds={"test_loss": (best.value / 4, best.value)},
            gates=(Gate(name="improvement", passed=True, reason="it is the first"),),
            time=2000.0,
        )

    def carry_out(self, registry: Registry | None, decision: Promoting | None = None) -> ModelArtifact:
        decision = decision or self.decision(registry)
        return carry_out(self.objects, self.history.state, decision, self.champions(registry), folder=self.code)


@pytest.fixture
def code(tmp_path: Path) -> Iterator[Path]:
    import sys

    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "serving.py").write_text(SERVING)
    (folder / "arithmetic.py").write_text("def scaled(weight, row):\n    return weight * row\n")
    (folder / "unrelated.py").write_text("raise RuntimeError('not needed')\n")
    before = list(sys.path)
    yield folder
    sys.path[:] = before
    for name in ("serving", "arithmetic"):
        sys.modules.pop(name, None)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return new_database(tmp_path)


@pytest.fixture
def registry(uri: str) -> Registry:
    return Registry(uri)
