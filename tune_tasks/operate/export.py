"""Writes a study as tables into a folder or below any store's URL, each file whole or not at all.

All tables are of one moment: they come from one reading of the log. This module must not change the study.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from tune_tasks.errors import ConfigError, CorruptLog
from tune_tasks.operate.formats import check_format, write_table
from tune_tasks.operate.tables import Attempts, Table, events_table, reports_table, trials_table
from tune_tasks.store import Objects, Segment, StudyLog, open_objects
from tune_tasks.store.names import TEMPORARY, split_url
from tune_tasks.store.places import Place, study_log, study_objects
from tune_tasks.store.segment import segment_key
from tune_tasks.study import StudyState

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file that was written: where, how many rows, and how many bytes."""

    url: str
    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class Exported:
    """What `export_study` wrote. `segments` is how far the log went when it was read."""

    study: str
    segments: int
    files: tuple[ExportedFile, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return asdict(self)


def export_study(
    place: Place, target: str | Path, *, form: str = "parquet", progress: Progress | None = None
) -> Exported:
    """Writes trials, reports and events to a folder or a store's URL, over what is there of an earlier export.

    `form` is `parquet` (the extra `parquet`) or `csv`. Raises `ConfigError`, `StudyNotFound`, `CorruptLog` and
    `Unavailable`; then each of the three files is the old one or the new one, never a part.
    """
    check_format(form)
    objects = study_objects(place)
    place_to_write = _target(str(target), objects.url)
    replay = _Replay(study_log(objects), progress or (lambda _what, _done, _of: None))
    tables: list[Callable[[], Table]] = [
        lambda: events_table(replay.segments()),  # the first, since the others tell what it has read
        lambda: trials_table(replay.state),
        lambda: reports_table(replay.state, replay.attempts),
    ]
    files = [place_to_write.write(make(), form) for make in tables]
    return Exported(objects.url, replay.read, (files[1], files[2], files[0]))


def write_table_to(target: str, table: Table, form: str, *, study: str) -> ExportedFile:
    """Writes one table of the study at the URL `study`; as `export_study` does it, and with the same errors."""
    check_format(form)
    return _target(target, study).write(table, form)


class _Replay:
    """Reads the log from its beginning once, and keeps the state and the attempts that it tells."""

    def __init__(self, log: StudyLog, progress: Progress) -> None:
        self.state, self.attempts, self.read = StudyState(), Attempts(), 0
        self._log, self._progress = log, progress

    def segments(self) -> Iterator[Segment]:
        """The segments, each taken in before it is handed out."""
        for segment in self._log.segments():
            try:
                for event in segment.events:
                    self.attempts.note(event, self.state)
                    self.state.apply(event)
            except Exception as error:  # whatever the fold raises, the log does not fit together
                where = f"{self._log.url}/{segment_key(segment.number)}"
                raise CorruptLog(f"{where}: does not follow from the segments before: {error}") from error
            self.read = segment.number
            self._progress("segments", segment.number, 0)
            yield segment


class _Folder:
    """A local folder: files get their names when they are whole on the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, table: Table, form: str) -> ExportedFile:
        path = self._folder / f"{table.name}.{form}"
        temporary = path.with_name(f"{TEMPORARY}{uuid4().hex}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            rows = write_table(temporary, table, form)
            _sync(temporary)
            size = temporary.stat().st_size
            temporary.replace(path)
            _sync(self._folder)
        except OSError as error:
            raise ConfigError(f"--to: {path}: {error.strerror or error}; choose another folder") from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return ExportedFile(str(path), rows, size)


class _Store:
    """A place below a store's URL: files are made here, and sent when they are whole."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def write(self, table: Table, form: str) -> ExportedFile:
        name = f"{table.name}.{form}"
        with tempfile.TemporaryDirectory(prefix="tune-tasks-") as scratch:
            rows = write_table(Path(scratch) / name, table, form)
            copied = self._objects.upload(Path(scratch) / name, name)
        return ExportedFile(f"{self._objects.url}/{name}", rows, copied.size)


def _target(target: str, study: str) -> _Folder | _Store:
    scheme, rest = split_url(target)
    folder = Path(rest).expanduser().resolve()
    store = None if scheme == "file" else open_objects(target)
    url = str(folder) if store is None else store.url
    if f"{url}/".startswith(f"{study}/"):
        raise ConfigError(f"--to: {url} is inside the study; tables have no place there, choose another folder")
    return _Folder(folder) if store is None else _Store(store)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
