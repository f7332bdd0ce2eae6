"""A short list of JSON entries that several processes add to, each knowing what it has seen: the champions of a model.

Entry n is an object that is created only if it is absent, as a segment of the log is, so of two who add the next one
only one does. This module must not know what an entry means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from tune_tasks.errors import CorruptLog

if TYPE_CHECKING:
    from tune_tasks.store import Objects


class Ledger:
    """The entries below `prefix`, numbered from 1."""

    def __init__(self, objects: Objects, prefix: str) -> None:
        self._objects, self._prefix = objects, prefix.rstrip("/")

    @property
    def url(self) -> str:
        """Where the entries lie."""
        return f"{self._objects.url}/{self._prefix}"

    def entries(self) -> list[dict[str, Any]]:
        """Every entry, the oldest first. Raises `CorruptLog` where one is missing or is not JSON."""
        keys = [key for key in self._objects.list(f"{self._prefix}/") if key.endswith(".json")]
        for number, key in enumerate(keys, start=1):
            if key != self._key(number):
                raise CorruptLog(f"{self.url}: entry {number} is missing, but {key.rpartition('/')[2]} is there")
        return [self._read(key) for key in keys]

    def append(self, entry: Mapping[str, Any], after: int) -> bool:
        """Adds an entry after number `after`; False where another one is there already.

        True also where this very entry is there: from a try whose reply was lost, or one that was killed.
        """
        key, data = self._key(after + 1), orjson.dumps(entry, option=orjson.OPT_SORT_KEYS)
        return self._objects.create(key, data) or self._objects.read(key) == data

    def mark(self, number: int) -> None:
        """Notes that what entry `number` asked for was done."""
        self._objects.create(self._key(number).replace(".json", ".done"), b"{}")

    def marked(self, number: int) -> bool:
        """Tells whether that was noted."""
        return self._objects.read(self._key(number).replace(".json", ".done")) is not None

    def _key(self, number: int) -> str:
        return f"{self._prefix}/{number:012d}.json"

    def _read(self, key: str) -> dict[str, Any]:
        try:
            entry = orjson.loads(self._objects.read(key) or b"")
        except orjson.JSONDecodeError as error:
            raise CorruptLog(f"{self._objects.url}/{key}: is not JSON: {error}") from None
        if not isinstance(entry, dict):
            raise CorruptLog(f"{self._objects.url}/{key}: holds {type(entry).__name__}, must be an object")
        return entry
