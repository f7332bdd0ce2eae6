"""What the cluster needs to run a study, as Ray's runtime environments have it.

Secrets are taken from the environment of this process and go to Ray alone. This module must not put one into an error,
a log or an event.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from tune_tasks.errors import ConfigError
from tune_tasks.spec import StudySpec
from tune_tasks.store.credentials import given

_EXCLUDED = [".git", ".venv", "__pycache__", "studies"]
"""Never sent along with a working directory."""
_PODMAN = re.compile(r"\[Node (\S+?)\].*?Podman command failed: .*?:/shared:Z', '(.+?)', .*?, stderr=(.*)", re.DOTALL)
"""How Ray tells that its try of an image failed: the node, the image, and what podman or its `python` said."""


def worker_env(spec: StudySpec, folder: str | None) -> dict[str, Any]:
    """The runtime environment of a worker: packages, variables, the credentials that this thread uses, and image.

    A list of packages is looked for from `folder` on, that of the spec file. Raises `ConfigError` for one that is not
    there, for a missing secret, and for what Ray cannot hand to an image.
    """
    environment = spec.environment
    missing = [name for name in environment.secrets if name not in os.environ]
    if missing:
        raise ConfigError(f"environment.secrets: {', '.join(missing)} is not set in the environment of this process")
    secrets = {name: os.environ[name] for name in environment.secrets}
    variables = {**environment.variables, **secrets, **given()}
    if environment.image and (quoted := [name for name, value in variables.items() if "'" in value]):
        # Ray writes them into a line for the node's shell: no worker would start, and nobody would say so
        raise ConfigError(f"environment: {', '.join(quoted)} has a single quote, which Ray cannot hand to an image")
    parts = {
        "env_vars": variables,
        "pip": _listed("pip", environment.pip, folder),
        "uv": _listed("uv", environment.uv, folder),
        "image_uri": environment.image,
    }
    return {name: value for name, value in parts.items() if value}


def runtime_env(spec: StudySpec, folder: str | None) -> dict[str, Any]:
    """The runtime environment of a whole job: that of its workers, and the working directory.

    `folder` is that of the spec file. Where the spec names no working directory and the objective lies in that folder,
    it is that folder; none goes with an image, which holds the objective. Raises `ConfigError` where it is not there.
    """
    if spec.environment.image is not None:
        return worker_env(spec, folder)
    directory = spec.environment.working_dir
    if directory is None:
        directory = folder if _holds_objective(spec, folder) else None
    elif "://" not in directory:
        path = Path(folder or ".", directory).resolve()
        if not path.is_dir():
            raise ConfigError(f"environment.working_dir: {directory!r} is no folder; {path} is not there")
        directory = str(path)
    if directory is None:
        return worker_env(spec, folder)
    return {**worker_env(spec, folder), "working_dir": directory, "excludes": _EXCLUDED}


def refused(error: object) -> ConfigError:
    """What Ray says of an environment that a node could not set up, the point of it first."""
    said = str(error)
    if failed := _PODMAN.search(said):
        node, image, told = failed.groups()
        point = f"node {node} cannot run environment.image {image!r}, which must hold Ray for its `python`; podman says"
        return ConfigError(f"environment: Ray cannot set it up: {point}: {told.strip()}")
    missing = "FileNotFoundError" in said and "'podman'" in said
    point = "a node has no podman, by which Ray runs environment.image; " if missing else ""
    return ConfigError(f"environment: Ray cannot set it up: {point}{said}")


def _listed(name: str, packages: tuple[str, ...] | str | None, folder: str | None) -> list[str]:
    """The packages by name, also where they stand in a file: Ray would look for that on another machine."""
    if not isinstance(packages, str):
        return list(packages or ())
    path = Path(folder or ".", packages)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"environment.{name}: {packages!r} cannot be read; {path} is not there") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _holds_objective(spec: StudySpec, folder: str | None) -> bool:
    """Tells whether the objective's module, or the script of its command, is to be found in this folder."""
    if folder is None:
        return False
    if spec.objective is None:
        return True
    module = Path(folder, *spec.objective.partition(":")[0].split("."))
    return module.with_suffix(".py").exists() or module.is_dir()
