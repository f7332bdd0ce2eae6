"""Objects in the memory of this process, for tests and for trying things out. Gone when the process ends."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

from tune_tasks.store.copies import Copied

_LOCK = threading.Lock()
_ALL: dict[str, bytes] = {}


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
            _ALL[self._root + key] = data
            return True

    def read(self, key: str) -> bytes | None:
        """See `Objects.read`."""
        return _ALL.get(self._root + key)

    def replace(self, key: str, data: bytes) -> None:
        """See `Objects.replace`."""
        with _LOCK:
            _ALL[self._root + key] = data

    def list(self, prefix: str) -> list[str]:
        """See `Objects.list`."""
        with _LOCK:
            return sorted(key.removeprefix(self._root) for key in _ALL if key.startswith(self._root + prefix))

    def delete(self, key: str) -> None:
        """See `Objects.delete`."""
        with _LOCK:
            _ALL.pop(self._root + key, None)

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
