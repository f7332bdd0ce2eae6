"""What lies below a study's URL, sorted by what it is; whatever no part of tune_tasks writes is unknown.

Pure. This module must not read an object: a key says what it was written as, not whether it is whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

from tune_tasks.store import Entry
from tune_tasks.store.segment import segment_number
from tune_tasks.store.snapshots import HINT

_SNAPSHOT = re.compile(r"snap/(\d{12})\.[0-9a-f]{16}\.snap")
_FOLDER = re.compile(r"(ckpt/\d+/\d+/\d+-[0-9a-f]{8}|models/[0-9a-f-]+)/(manifest\.json|model\.json|data/.+)")
_EVALUATION = re.compile(r"evaluations/[0-9a-f]{8}/[^/]+\.json")
_OUTPUT = re.compile(r"logs/\d+-\d+\.txt")
_PROBE = re.compile(r"probe/[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Folder:
    """A checkpoint, or a promoted model: the objects that lie below one key, by their names there."""

    key: str
    files: dict[str, Entry]

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(entry.size for entry in self.files.values())

    @property
    def modified(self) -> float:
        """When the newest of them was written, by the store's clock."""
        return max(entry.modified for entry in self.files.values())


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything below a study's URL. Segments and snapshots are by number and key, in their order."""

    segments: dict[int, Entry] = field(default_factory=dict)
    snapshots: dict[str, Entry] = field(default_factory=dict)
    hint: Entry | None = None
    checkpoints: dict[str, Folder] = field(default_factory=dict)
    models: dict[str, Folder] = field(default_factory=dict)
    evaluations: dict[str, Entry] = field(default_factory=dict)
    output: tuple[Entry, ...] = ()
    probes: tuple[Entry, ...] = ()
    unknown: tuple[Entry, ...] = ()


def sort_entries(entries: Iterable[Entry]) -> Contents:
    """Sorts a listing of the whole study."""
    segments: dict[int, Entry] = {}
    snapshots: dict[str, Entry] = {}
    folders: dict[str, Folder] = {}
    evaluations: dict[str, Entry] = {}
    hint: Entry | None = None
    others: dict[str, list[Entry]] = {"output": [], "probes": [], "unknown": []}
    for entry in sorted(entries):
        number = segment_number(entry.key)
        if number is not None:
            segments[number] = entry
        elif _SNAPSHOT.fullmatch(entry.key):
            snapshots[entry.key] = entry
        elif entry.key == HINT:
            hint = entry
        elif match := _FOLDER.fullmatch(entry.key):
            folders.setdefault(match[1], Folder(match[1], {})).files[match[2]] = entry
        elif _EVALUATION.fullmatch(entry.key):
            evaluations[entry.key] = entry
        else:
            others[_other(entry.key)].append(entry)
    return Contents(
        segments=segments,
        snapshots=snapshots,
        hint=hint,
        checkpoints={key: folder for key, folder in folders.items() if key.startswith("ckpt/")},
        models={key: folder for key, folder in folders.items() if key.startswith("models/")},
        evaluations=evaluations,
        **{name: tuple(found) for name, found in others.items()},
    )


def snapshot_number(key: str) -> int:
    """The segment after which the snapshot at this key was written."""
    match = _SNAPSHOT.fullmatch(key)
    if match is None:
        raise ValueError(f"{key!r} is not the key of a snapshot")
    return int(match[1])


def read_hint(data: bytes) -> list[str]:
    """The snapshots that a hint names; none where it is no hint."""
    try:
        hint = orjson.loads(data)
        names = [hint["snapshot"], *hint.get("kept", [])]
    except (orjson.JSONDecodeError, AttributeError, LookupError, TypeError):
        return []
    return [name for name in names if isinstance(name, str)]


def _other(key: str) -> str:
    if _OUTPUT.fullmatch(key):
        return "output"
    return "probes" if _PROBE.fullmatch(key) else "unknown"
