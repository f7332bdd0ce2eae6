"""The snapshots of one study, newest first, and the hint that names the newest one.

Nothing here is trusted: what is missing, wrong or corrupt is passed over with a warning, and the log is replayed
from further back. This module must not fail a study, and must not touch the log.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import orjson

from tune_tasks.errors import CorruptLog
from tune_tasks.events import FORMAT
from tune_tasks.store.segment import fingerprint
from tune_tasks.store.snapshot import Position, decode, encode
from tune_tasks.study import StudyState

if TYPE_CHECKING:
    from tune_tasks.store import Objects

HINT = "HEAD.json"
FOLDER = "snap/"
KEPT = 2

_log = logging.getLogger(__name__)
_NAME = re.compile(r"snap/(\d{12})\.([0-9a-f]{16})\.snap")


def newest(objects: Objects) -> Iterator[tuple[StudyState, Position]]:
    """Reads the snapshots that can be read, the best first: the one that the hint names, then by number."""
    hinted = _hinted(objects)
    if hinted is not None:
        yield from _usable(objects, *hinted)
    for key in reversed(_listed(objects)):
        if hinted is None or key != hinted[0]:
            yield from _usable(objects, key, "")


def write(objects: Objects, state: StudyState, at: Position) -> None:
    """Writes a snapshot, then the hint, and deletes all but the newest two: one may be corrupt.

    What is to be deleted comes from the hint before, as listing costs as much as writing. What that misses, because
    two wrote at once or one was killed, is for the sweep.
    """
    data = encode(state, at)
    digest = fingerprint(data)
    key = f"{FOLDER}{at.number:012d}.{digest[:16]}.snap"
    kept = [*(name for name in _kept(objects) if name != key), key]
    objects.replace(key, data)  # the name holds the digest, so whoever else writes it writes the same
    hint = {"format": FORMAT, "snapshot": key, "digest": digest, "number": at.number, "kept": kept[-KEPT:]}
    objects.replace(HINT, orjson.dumps(hint))
    for old in kept[:-KEPT]:
        objects.delete(old)


def _kept(objects: Objects) -> list[str]:
    """The keys of the snapshots that the hint names, oldest first."""
    try:
        names = orjson.loads(objects.read(HINT) or b"{}")["kept"]
        return [name for name in names if _NAME.fullmatch(name)]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return []


def _hinted(objects: Objects) -> tuple[str, str] | None:
    data = objects.read(HINT)
    if data is None:
        return None
    try:
        hint = orjson.loads(data)
        key, digest = hint["snapshot"], hint["digest"]
        if _NAME.fullmatch(key) and isinstance(digest, str):
            return key, digest
    except (orjson.JSONDecodeError, LookupError, TypeError):
        pass
    _log.warning("%s/%s is not a hint; looking for snapshots without it", objects.url, HINT)
    return None


def _listed(objects: Objects) -> list[str]:
    return [key for key in objects.list(FOLDER) if _NAME.fullmatch(key)]


def _usable(objects: Objects, key: str, digest: str) -> Iterator[tuple[StudyState, Position]]:
    """Yields the snapshot at a key where it is what its name (and its digest, where known) say."""
    data = objects.read(key)
    if data is None:
        _log.warning("%s/%s is named by %s but missing; trying an older snapshot", objects.url, key, HINT)
        return
    try:
        yield _verified(data, key, digest)
    except CorruptLog as error:
        _log.warning("%s/%s cannot be used (%s); trying an older snapshot", objects.url, key, error)


def _verified(data: bytes, key: str, digest: str) -> tuple[StudyState, Position]:
    actual, match = fingerprint(data), _NAME.fullmatch(key)
    if match is None or not actual.startswith(match[2]) or digest not in {"", actual}:
        raise CorruptLog(f"its SHA-256 is {actual}")
    state, at = decode(data)
    if at.number != int(match[1]):
        raise CorruptLog(f"it is of segment {at.number}")
    return state, at
