"""Where a tracker that writes files puts those of a study. Pure."""

from __future__ import annotations

from pathlib import Path

from tune_tasks.errors import ConfigError
from tune_tasks.store.names import POSTGRES, shown_url, split_url
from tune_tasks.study import StudyState


def beside(to: str | None, folder: str, state: StudyState, url: str, section: str) -> str | None:
    """The study's own folder below `to`, by default below `folder` in the store; None where the store is in memory.

    Raises `ConfigError` where the store is a database, which holds no files.
    """
    store = url.rpartition("/")[0]
    scheme, rest = split_url(to or store)
    if to is None and scheme == "memory":
        return None
    if scheme in POSTGRES:
        raise ConfigError(f"{section}: missing; {shown_url(to or store)} is a database, give a folder or a bucket")
    root = str(Path(rest).expanduser().resolve()) if scheme == "file" else (to or store).rstrip("/")
    return f"{root}/{state.spec.name}" if to else f"{root}/{folder}/{state.spec.name}"
