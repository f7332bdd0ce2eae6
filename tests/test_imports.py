"""Imports point one way, and nothing heavy is loaded before it is needed (DESIGN D7 and section 3)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tune_tasks"

PURE = {"errors", "command", "sections", "delivery", "space", "points", "spec"}
PURE |= {"events", "curves", "indexes", "trial", "transitions", "study"}
CHOOSING = PURE | {"samplers", "schedulers"}
ALLOWED = {
    "__init__": set(),
    "errors": set(),
    "space": {"errors"},
    "command": {"errors"},
    "events": set(),
    "curves": set(),
    "trial": {"curves", "events"},
    "transitions": {"events", "trial"},
    "indexes": {"study"},
    "sections": set(),
    "delivery": {"sections"},
    "points": {"errors", "space"},
    "spec": {"errors", "command", "sections", "delivery", "points", "space"},
    "study": PURE,
    "samplers": PURE | {"samplers"},
    "schedulers": PURE | {"schedulers"},
    "decide": CHOOSING,
    "plugins": CHOOSING | {"tracking", "deployment"},
    "retention": PURE,
    "session": PURE,
    "store": PURE | {"store"},
    "execution": PURE | {"store", "session", "execution"},
    "views": PURE | {"views"},
    "registry": PURE | {"store", "registry"},
    "tracking": PURE | {"registry", "store", "operate", "plugins", "studies", "tracking"},
    "studies": CHOOSING | {"store", "plugins", "decide", "retention"},
    "next_week": PURE | {"fingerprints", "retraining", "steps", "store"},
    "retraining": PURE | {"store", "studies"},
    "fingerprints": PURE | {"store"},
    "final": PURE | {"loop", "registry", "store", "studies"},
    "extension": PURE | {"plugins", "studies"},
    "attend": PURE | {"execution", "studies", "watching"},
    "watching": PURE | {"execution", "store"},
    "operate": PURE | {"store", "views", "operate"},
    "deployment": PURE | {"deployment", "execution", "plugins", "promotion", "registry", "store", "studies"},
    "promotion": PURE | {"promotion", "registry", "retraining", "store", "studies", "tracking", "views"},
}
"""What each module or folder of the engine may import; a name that is missing here may import anything."""

HEAVY = (
    "ray",
    "mlflow",
    "optuna",
    "pandas",
    "scipy",
    "numpy",
    "s3fs",
    "psycopg",
    "obstore",
    "pyarrow",
    "prefect",
    "airflow",
    "rich",
)


def imported(path: Path) -> Iterator[str]:
    """Names the parts of the engine that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tune_tasks":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("tune_tasks."))


def violations(root: Path) -> list[str]:
    found = []
    for path in sorted(root.rglob("*.py")):
        part = path.relative_to(root).parts[0].removesuffix(".py")
        allowed = ALLOWED.get(part) if part != "__init__" else None
        if allowed is not None:
            found += [f"{path.relative_to(root)} imports {name}" for name in imported(path) if name not in allowed]
    return found


def test_imports_of_the_engine_point_one_way() -> None:
    assert violations(PACKAGE) == []


def test_an_import_against_the_direction_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "log.py").write_text("from tune_tasks.decide import plan\n")
    assert violations(tmp_path) == ["store/log.py imports decide"]


def test_the_engine_imports_no_orchestrator() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import airflow" not in text, path
        assert "import prefect" not in text, path


def loaded_by(statement: str) -> set[str]:
    """The heavy packages that a fresh process has loaded after a statement."""
    program = f"import sys\n{statement}\nprint(' '.join(sorted(m for m in {HEAVY!r} if m in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import tune_tasks",
        "from tune_tasks import StudySpec, load_spec",
        "from tune_tasks import report, get_checkpoint, get_context",
        "from tune_tasks import open_study, sample, launch_trials, evaluate_and_prune, promote_best, tune",
        "import tune_tasks.cli",
    ],
)
def test_nothing_heavy_is_loaded_by(statement: str) -> None:
    assert loaded_by(statement) == set()


def test_a_heavy_import_is_noticed() -> None:
    assert loaded_by("import numpy") == {"numpy"}


def test_no_public_name_is_hidden_by_a_module_of_the_same_name() -> None:
    import tune_tasks

    modules = {path.stem for path in PACKAGE.iterdir()}
    assert modules & set(tune_tasks.__all__) == set()
