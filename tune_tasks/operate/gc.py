"""Removes what killed processes left behind and nothing names, once it is older than a grace period.

Everything is listed before the log is read, and ages are the store's own. This module must not remove a segment, what
the log names, or what it does not know; `plan_sweep` decides and is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias
from uuid import uuid4

from tune_tasks.errors import Unavailable, invalid
from tune_tasks.operate.keys import Contents, Folder, read_hint, sort_entries
from tune_tasks.operate.manifests import evaluations, references
from tune_tasks.store import Entry, Objects
from tune_tasks.store.checkpoints import MANIFEST
from tune_tasks.store.places import Place, study_log, study_objects
from tune_tasks.store.snapshots import HINT, KEPT

GRACE = 24 * 3600.0
"""Seconds for which what nothing names is left alone: its record may be on the way, by a driver that was stopped."""

Kind: TypeAlias = Literal["checkpoint", "unfinished upload", "evaluation", "temporary file", "snapshot", "probe"]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Removal:
    """What is removed as one: objects below `key`, or that one object. `size` in bytes, `age` in seconds."""

    kind: Kind
    key: str
    objects: tuple[str, ...]
    size: int
    age: float


@dataclass(frozen=True, slots=True)
class Swept:
    """What `sweep_study` removed (or with `dry_run` would remove), and what it left.

    `younger` counts what nothing names but is within the grace period; `unknown` are keys that tune_tasks does not
    write, `models` complete models that no promotion names. Both stay.
    """

    url: str
    dry_run: bool
    grace: float
    removals: tuple[Removal, ...]
    younger: int
    unknown: tuple[str, ...]
    models: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of everything that is removed."""
        return sum(removal.size for removal in self.removals)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {**asdict(self), "size": self.size}


def sweep_study(
    place: Place, *, grace: float = GRACE, dry_run: bool = False, progress: Progress | None = None
) -> Swept:
    """Removes from a study what nothing names and is older than `grace` seconds by the store's clock.

    May run beside a driver: a checkpoint that is published and not recorded yet is younger than the grace period,
    which must be longer than a driver may be stopped. Raises `ConfigError`, `StudyNotFound`, `CorruptLog` (then
    nothing was removed) and `Unavailable`.
    """
    if not grace >= 0:
        raise invalid("grace", grace, "must be at least 0 seconds")
    objects = study_objects(place)
    log = study_log(objects)
    now = _now(objects)
    hint = read_hint(objects.read(HINT) or b"")
    contents = sort_entries(objects.entries(""))
    unfinished = objects.unfinished(now - grace)
    state = log.load()
    named = {*references(state), *evaluations(state), *hint}
    removals, younger = plan_sweep(contents, unfinished, named, now=now, grace=grace)
    if not dry_run:
        _remove(objects, removals, progress)
        objects.unfinished(now - grace, remove=True)
    return Swept(
        url=objects.url,
        dry_run=dry_run,
        grace=grace,
        removals=removals,
        younger=younger,
        unknown=tuple(entry.key for entry in contents.unknown),
        models=tuple(key for key, found in contents.models.items() if key not in named and MANIFEST in found.files),
    )


def plan_sweep(
    contents: Contents, unfinished: list[Entry], named: set[str], *, now: float, grace: float
) -> tuple[tuple[Removal, ...], int]:
    """Decides what goes, nothing that is named or younger than `grace` seconds; and counts what is too young.

    `named` are keys of folders, measurements and snapshots, `unfinished` what is old enough already.
    """
    found = [*_folders(contents, named, now), *_others(contents, named, now)]
    old = [removal for removal in found if removal.age >= grace]
    temporary = [Removal("temporary file", e.key, (), e.size, now - e.modified) for e in unfinished]
    return (*old, *temporary), len(found) - len(old)


def _folders(contents: Contents, named: set[str], now: float) -> Iterator[Removal]:
    """Checkpoints that nothing names, and uploads of checkpoints and models that never finished."""
    for key, folder in {**contents.checkpoints, **contents.models}.items():
        complete = MANIFEST in folder.files
        if key in named or (complete and key.startswith("models/")):
            continue
        kind: Kind = "checkpoint" if complete else "unfinished upload"
        yield Removal(kind, key, _manifest_first(folder), folder.size, now - folder.modified)


def _others(contents: Contents, named: set[str], now: float) -> Iterator[Removal]:
    """All but the newest snapshots and the one that the hint names, unrecorded measurements, and what probes left."""
    for key in [*contents.snapshots][:-KEPT]:
        if key not in named:
            entry = contents.snapshots[key]
            yield Removal("snapshot", key, (key,), entry.size, now - entry.modified)
    for key, entry in contents.evaluations.items():
        if key not in named:
            yield Removal("evaluation", key, (key,), entry.size, now - entry.modified)
    for entry in contents.probes:
        yield Removal("probe", entry.key, (entry.key,), entry.size, now - entry.modified)


def _manifest_first(folder: Folder) -> tuple[str, ...]:
    """The objects in the order in which they go: what is left after a kill is an upload that never finished."""
    names = sorted(folder.files, key=lambda name: (name != MANIFEST, name))
    return tuple(f"{folder.key}/{name}" for name in names)


def _remove(objects: Objects, removals: tuple[Removal, ...], progress: Progress | None) -> None:
    for done, removal in enumerate(removals):
        if progress:
            progress("leftovers", done, len(removals))
        for key in removal.objects:
            objects.delete(key)


def _now(objects: Objects) -> float:
    """The store's own time: what it says of an object that was written just now."""
    key = f"probe/{uuid4().hex}"
    objects.create(key, b"now")
    try:
        for entry in objects.entries(key):
            return entry.modified
    finally:
        objects.delete(key)
    raise Unavailable(f"{objects.url}: {key} was written, but is not in the listing; try again later")
