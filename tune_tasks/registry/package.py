"""Makes a folder that MLflow loads as a model: the checkpoint, the loader's own code, and what it needs installed.

Local work only: nothing is sent anywhere. The loader's file and what it imports from beside it travel with the model;
what is installed is named, with its version. This module must not pickle anything.
"""

from __future__ import annotations

import ast
import functools
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from tune_tasks.errors import ConfigError
from tune_tasks.registry.client import quiet
from tune_tasks.spec import resolve

CHECKPOINT = "checkpoint"
"""The name of the folder with the model's files; MLflow keeps it below artifacts/."""

_TRY = """
import importlib, pathlib, sys
target, folder = sys.argv[1:]
module, _, name = target.partition(":")
load = importlib.import_module(module)
for part in name.split("."):
    load = getattr(load, part)
model = load(pathlib.Path(folder))
assert callable(getattr(model, "predict", None)), f"it returned a {type(model).__name__}, which has no predict"
"""


def save(folder: Path, loader: str | None, near: str | None, target: Path) -> None:
    """Writes the model to `target`; `folder` holds its files and is called `CHECKPOINT`, `near` is where code is found.

    Raises `ConfigError` where the loader cannot be imported.
    """
    with quiet():
        import mlflow.pyfunc

        code = local_code(loader, near) if loader else []
        mlflow.pyfunc.save_model(
            path=str(target),
            python_model=str(Path(__file__).with_name("served.py")),
            artifacts={CHECKPOINT: str(folder)},
            code_paths=[str(path) for path in code] or None,
            pip_requirements=requirements(code),
            model_config={"loader": loader or ""},
        )


def try_loader(loader: str, model: Path) -> None:
    """Loads the saved model in a fresh process, with nothing but its own copy of the code. Raises `ConfigError`."""
    checkpoint = model / "artifacts" / CHECKPOINT
    done = subprocess.run(  # noqa: S603  # the same interpreter, with code of the user's own
        [sys.executable, "-c", _TRY, loader, str(checkpoint)],
        cwd=model / "code" if (model / "code").is_dir() else model,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ConfigError(
            f"promotion.loader: {loader!r} does not load the model in a process of its own: {lines[-1]}. "
            "The model has the loader's file and what that imports from beside it; anything else must be installed"
        )


def local_code(loader: str, near: str | None) -> list[Path]:
    """The loader's own file or package and those beside it that it imports; nothing where it is installed."""
    resolve(loader, "promotion.loader", near)
    top = loader.partition(":")[0].partition(".")[0]
    place = _place(sys.modules[top])
    if place is None or "site-packages" in place.parts or place.is_relative_to(sys.base_prefix):
        return []
    return _beside(place.parent, top)


def requirements(code: list[Path]) -> list[str]:
    """The installed packages that the code imports, pinned to the versions that are here."""
    own = {path.stem for path in code}
    names = {name for path in code for name in _imports(path)} - own - set(sys.stdlib_module_names)
    known = _distributions() if names else {}
    return sorted({pin for name in names for pin in _pins(known.get(name, [name.replace("_", "-")]))})


def environment(targets: Iterable[str | None], near: str | None) -> dict[str, Any]:
    """What the code ran with: Python, the platform, and the installed packages that the targets' code imports.

    The code is read and not run: where a model is promoted, not all that trained it may be installed.
    """
    packages: dict[str, str] = {}
    for target in targets:
        top = (target or "").partition(":")[0].partition(".")[0]
        code = _beside(Path(near), top) if near and top else []
        pins = requirements(code) if code else _pins(_distributions().get(top, []))
        packages |= dict(pin.split("==", 1) for pin in pins)
    return {"python": platform.python_version(), "platform": platform.platform(), "packages": packages}


def _beside(folder: Path, top: str) -> list[Path]:
    """The file or package of this name in a folder, and those beside it that it imports."""
    found: dict[str, Path] = {}
    waiting = [top]
    while waiting:
        name = waiting.pop()
        path = next((p for p in (folder / f"{name}.py", folder / name) if p.exists()), None)
        if name not in found and path is not None:
            found[name] = path
            waiting += [imported for imported in _imports(path) if imported not in found]
    return sorted(found.values())


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Which installed packages have a module; asked once, as it reads the records of all of them."""
    return packages_distributions()


def _pins(distributions: list[str]) -> Iterator[str]:
    for name in distributions:
        try:
            yield f"{name}=={version(name)}"
        except PackageNotFoundError:
            continue  # a module on the search path that no package installed


def _place(module: object) -> Path | None:
    """The file of a module, or the folder of a package."""
    file = getattr(module, "__file__", None)
    if file:
        path = Path(file).resolve()
        return path.parent if path.name == "__init__.py" else path
    folders = list(getattr(module, "__path__", []))
    return Path(folders[0]).resolve() if folders else None


def _imports(path: Path) -> set[str]:
    """The top names of what a file, or all files of a package, import."""
    names: set[str] = set()
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names
