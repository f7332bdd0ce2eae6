"""What a study loads once for all its trials, where its driver runs.

This module must not know how the values get to the workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune_tasks.errors import ConfigError
from tune_tasks.spec import resolve


def load(loaders: Mapping[str, Any], folder: str | None) -> dict[str, Any]:
    """Calls each loader, a callable or an import string that is looked for in `folder` first.

    Raises `ConfigError` that names the one that fails.
    """
    return {name: _load(f"inputs.{name}", loader, folder) for name, loader in loaders.items()}


def _load(path: str, loader: Any, folder: str | None) -> Any:
    function = resolve(loader, path, folder) if isinstance(loader, str) else loader
    try:
        return function()
    except Exception as error:
        raise ConfigError(f"{path}: {loader!r} failed: {type(error).__name__}: {error}") from error
