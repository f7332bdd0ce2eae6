"""Objects in the memory of this process, for tests and for trying things out. Gone when the process ends."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

from tune_tasks.store.copies import Copied
from tune_tasks.store.names import Entry

_LOCK = threading.Lock()
_ALL: dict[str, bytes] = {}
_MODIFIED: dict[str, float] = {}


class MemoryObjects:
    """The objects below one name; every instance in the process sees the same ones. Safe between threads."""

    lanes = 1

    def __init__(self, place: str) -> None:
        self._root = place.strip("/") + "/"
        self.url = f"memory://{place.strip('/')}"

    def create(self, key: str, data: bytes) -> bool:
        """See `Objects.create`; looking and writing are one step under a lock."""
        with _LOCK:
            if self._root + key in _ALL:
                return False
            self._put(key, data)
            return True

    def read(self, key: str) -> bytes | None:
        """See `Objects.read`."""
        return _ALL.get(self._root + key)

    def replace(self, key: str, data: bytes) -> None:
        """See `Objects.replace`."""
        with _LOCK:
            self._put(key, data)

    def entries(self, prefix: str) -> list[Entry]:
        """See `Objects.entries`."""
        with _LOCK:
            names = sorted(name for name in _ALL if name.startswith(self._root + prefix))
            return [Entry(name.removeprefix(self._root), len(_ALL[name]), _MODIFIED[name]) for name in names]

    def unfinished(self, before: float, *, remove: bool = False) -> list[Entry]:  # noqa: ARG002  # see below
        """See `Objects.unfinished`: what a process left unfinished in its memory has gone with it."""
        return []

    def list(self, prefix: str) -> list[str]:
        """See `Objects.list`."""
        with _LOCK:
            return sorted(key.removeprefix(self._root) for key in _ALL if key.startswith(self._root + prefix))

    def delete(self, key: str) -> None:
        """See `Objects.delete`."""
        with _LOCK:
            _ALL.pop(self._root + key, None)
            _MODIFIED.pop(self._root + key, None)

    def _put(self, key: str, data: bytes) -> None:
        _ALL[self._root + key], _MODIFIED[self._root + key] = data, time.time()

    def upload(self, source: Path, key: str) -> Copied:
        """See `Files.upload`; everything is in memory here, so the whole file is."""
        data = source.read_bytes()
        self.replace(key, data)
        return Copied(len(data), hashlib.sha256(data).hexdigest())

    def download(self, key: str, target: Path, size: int) -> Copied | None:
        """See `Files.download`."""
        data = self.read(key)
        if data is None:
            return None
        target.write_bytes(data[:size])
        return Copied(len(data[:size]), hashlib.sha256(data[:size]).hexdigest())
