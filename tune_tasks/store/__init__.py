"""Where a study lives: its log, its snapshots and its checkpoints, below one URL.

This page shows the two protocols that a backend fulfils; `tune_tasks.testing.stores.StoreContract` is their test.
The store knows segments and bytes. It must not know what an event decides: it never imports `decide`, `steps`, a
sampler or a scheduler.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from tune_tasks.store.checkpoints import fetch, publish
from tune_tasks.store.copies import Copied
from tune_tasks.store.credentials import given
from tune_tasks.store.log import StudyLog
from tune_tasks.store.names import Entry, split_url
from tune_tasks.store.probe import probe
from tune_tasks.store.retry import Retrying
from tune_tasks.store.segment import Segment

DEADLINE = 60.0
"""Seconds for which a call to a store is tried again before it is `Unavailable`."""


class Files(Protocol):
    """Moves large files, piece by piece. What hashes is what was moved, so a file that changes meanwhile shows."""

    def upload(self, source: Path, key: str) -> Copied:
        """Copies a file to `key`, over what is there; when it returns, the copy survives a power failure."""
        ...

    def download(self, key: str, target: Path, size: int) -> Copied | None:
        """Copies the first `size` bytes of an object (fewer where it has fewer) to a file; None where it is absent."""
        ...


class Objects(Files, Protocol):
    """Small immutable objects by key. Keys are relative paths such as `log/000000000001.jsonl`.

    Every method raises `Unavailable` when the store did not answer in time, and `ConfigError` for what only an edit of
    the spec mends (permission, a bucket that does not exist); never an exception of the backend.
    """

    @property
    def url(self) -> str:
        """Where the objects lie, without credentials: safe to print and to store."""
        ...

    @property
    def lanes(self) -> int:
        """How many reads are worth having under way at once; 1 where waiting for one costs nothing."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Creates an object if there is none; whole and durable, or not at all.

        False: one was there already, which may be this very call's own, when its first reply was lost. So a caller who
        must know reads the key back.
        """
        ...

    def read(self, key: str) -> bytes | None:
        """Returns an object, as it is now and not as a cache has it; None only where it is certainly absent."""
        ...

    def replace(self, key: str, data: bytes) -> None:
        """Writes an object over what is there. For hints that are checked when they are read, never for the log."""
        ...

    def entries(self, prefix: str) -> list[Entry]:
        """Returns the objects whose keys begin with `prefix`, sorted by key, with what else a listing knows of them."""
        ...

    def unfinished(self, before: float, *, remove: bool = False) -> list[Entry]:
        """Returns, and removes if so asked, what killed writers began before a time and never finished.

        Temporary files, uploads in parts: no other listing shows them. `before` is by the store's clock.
        """
        ...

    def list(self, prefix: str) -> list[str]:
        """Returns the keys that begin with `prefix`, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Deletes an object; an absent one is fine."""
        ...


def open_objects(url: str, *, deadline: float = DEADLINE, variables: Mapping[str, str] | None = None) -> Objects:
    """Opens the objects below a URL: a local path, `file://`, `memory://`, or any URL that fsspec has a package for.

    Touches nothing yet. Credentials come from the environment; in the URL they are accepted and never shown.
    `variables` of a bucket's or database's environment are taken in place of this process's own, for one that opens
    several; by default those that `credentials.using` gives this thread.
    Raises `ConfigError` for a URL that cannot be one, an unknown scheme, and a package that is not installed.
    """
    scheme, rest = split_url(url)
    known = given() if variables is None else variables
    match scheme:
        case "file":
            from tune_tasks.store.local import LocalObjects

            return Retrying(LocalObjects(Path(rest)), deadline)
        case "memory":
            from tune_tasks.store.memory import MemoryObjects

            return Retrying(MemoryObjects(rest), deadline)
        case "postgresql" | "postgres":
            from tune_tasks.store.postgres import PostgresObjects, with_login

            return Retrying(PostgresObjects(with_login(url, known), deadline), deadline)
        case _:
            from tune_tasks.store.remote import FsspecObjects  # loads fsspec, which a local study never needs

            return Retrying(FsspecObjects(url, deadline, known), deadline)


__all__ = [
    "DEADLINE",
    "Copied",
    "Entry",
    "Files",
    "Objects",
    "Segment",
    "StudyLog",
    "fetch",
    "open_objects",
    "probe",
    "publish",
]
