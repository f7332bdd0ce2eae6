"""What the cluster needs to run a study, as Ray's runtime environments have it.

Secrets are taken from the environment of this process and go to Ray alone. This module must not put one into an error,
a log or an event.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tune_tasks.errors import ConfigError
from tune_tasks.spec import StudySpec

_EXCLUDED = [".git", ".venv", "__pycache__", "studies"]
"""Never sent along with a working directory."""


def worker_env(spec: StudySpec) -> dict[str, Any]:
    """The runtime environment of a worker: packages, variables and image. Raises `ConfigError` for a missing secret."""
    environment = spec.environment
    missing = [name for name in environment.secrets if name not in os.environ]
    if missing:
        raise ConfigError(f"environment.secrets: {', '.join(missing)} is not set in the environment of this process")
    variables = {**environment.variables, **{name: os.environ[name] for name in environment.secrets}}
    parts = {
        "env_vars": variables,
        "pip": _listed(environment.pip),
        "uv": _listed(environment.uv),
        "image_uri": environment.image,
    }
    return {name: value for name, value in parts.items() if value}


def runtime_env(spec: StudySpec, folder: str | None) -> dict[str, Any]:
    """The runtime environment of a whole job: that of its workers, and the working directory.

    `folder` is that of the spec file. Where the spec names no working directory and the objective lies in that folder,
    it is that folder; none goes with an image, which holds the objective. Raises `ConfigError` where it is not there.
    """
    if spec.environment.image is not None:
        return worker_env(spec)
    directory = spec.environment.working_dir
    if directory is None:
        directory = folder if _holds_objective(spec, folder) else None
    elif "://" not in directory:
        path = Path(folder or ".", directory).resolve()
        if not path.is_dir():
            raise ConfigError(f"environment.working_dir: {directory!r} is no folder; {path} is not there")
        directory = str(path)
    if directory is None:
        return worker_env(spec)
    return {**worker_env(spec), "working_dir": directory, "excludes": _EXCLUDED}


def refused(error: Exception) -> ConfigError:
    """What Ray says of an environment that a node could not set up, the point of it first."""
    missing = "FileNotFoundError" in str(error) and "'podman'" in str(error)
    point = "a node has no podman, by which Ray runs environment.image; " if missing else ""
    return ConfigError(f"environment: Ray cannot set it up: {point}{error}")


def _listed(packages: tuple[str, ...] | str | None) -> list[str] | str | None:
    return list(packages) if isinstance(packages, tuple) else packages


def _holds_objective(spec: StudySpec, folder: str | None) -> bool:
    """Tells whether the objective's module, or the script of its command, is to be found in this folder."""
    if folder is None:
        return False
    if spec.objective is None:
        return True
    module = Path(folder, *spec.objective.partition(":")[0].split("."))
    return module.with_suffix(".py").exists() or module.is_dir()
