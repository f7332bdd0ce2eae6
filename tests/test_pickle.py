"""Nothing that a checkpoint holds is ever loaded by the engine, and no pickle but the driver's own messages."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tune_tasks as tt
from tests.studies import COMMAND, write_study

PACKAGE = Path(tt.__file__).parent
LOADERS = {"load", "loads", "Unpickler"}
LIBRARIES = {"pickle", "cloudpickle", "dill", "joblib", "torch", "np", "numpy"}
EXPECTED = {"execution/worker.py", "execution/attempt.py", "execution/ray.py"}
"""Between driver and worker, over Ray, which pickles by itself: tasks, messages, and an objective given in Python."""

OBJECTIVE = """
import os
from pathlib import Path

import tune_tasks as tt


class Trap:
    def __reduce__(self):
        return os.system, (f"touch {os.environ['TRAP']}",)


def train(config):
    import pickle

    folder = tt.get_context().folder
    for _ in range(tt.get_context().max_budget):
        (folder / "model.pkl").write_bytes(pickle.dumps(Trap()))
        tt.report({"loss": config["x"]}, checkpoint=folder)
"""


def unpickling(root: Path) -> set[str]:
    """The files that call something named like the ways to load a pickle."""
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Attribute(attr=name, value=ast.Name(id=library)) if name in LOADERS and library in LIBRARIES:
                    found.add(path.relative_to(root).as_posix())
    return found


def test_only_what_travels_between_driver_and_worker_is_unpickled() -> None:
    assert unpickling(PACKAGE) <= EXPECTED


def test_an_unpickling_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("import pickle\npickle.loads(b'')\n")
    assert unpickling(tmp_path) == {"module.py"}


def test_a_malicious_checkpoint_goes_through_a_whole_study_and_is_never_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "sprung"
    monkeypatch.setenv("TRAP", str(trap))
    spec = write_study(tmp_path)
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    with pytest.raises(tt.ConfigError, match=r"model\.pkl of the model is pickled: whoever loads it runs"):
        tt.promote_best(tt.tune(spec))
    spec = write_study(tmp_path, promotion={"registry": "none", "pickle": True})
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    study = tt.open_study(spec, amend=True)
    model = tt.promote_best(study)
    assert model.promoted
    for command in ("fsck", "status", "report"):
        done = subprocess.run([*COMMAND, command, study.url], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    assert not trap.exists()
    saved = next(Path(str(model.path)).rglob("model.pkl"))
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.load(open({str(saved)!r}, 'rb'))"], check=True)
    assert trap.exists(), "the trap works"
