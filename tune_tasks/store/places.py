"""Where a person says that a study is, and how its log is read from there.

This module must not create anything, and must not show a credential: it takes URLs as people type them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from tune_tasks.errors import ConfigError, StudyNotFound
from tune_tasks.spec import check_name
from tune_tasks.store import Objects, open_objects
from tune_tasks.store.log import StudyLog
from tune_tasks.store.names import shown_url
from tune_tasks.store.segment import segment_key

NOTHING_HERE = "there is no study here; a study lives at <store>/<name>, and `tune-tasks run SPEC` creates it"

Place: TypeAlias = str | Path | Objects
"""A study's URL or folder, or its objects where they are open already."""


def study_objects(place: Place) -> Objects:
    """Opens the place of a study, whether there is one or not. Raises `ConfigError` for what cannot be its URL."""
    if not isinstance(place, str | Path):
        return place
    url = str(place) if "://" in str(place) else str(Path(place).expanduser().resolve())
    try:
        check_name(shown_url(url).rstrip("/").rpartition("/")[2])
    except ValueError as error:
        raise ConfigError(f"study URL: {shown_url(url)}: {error}") from None
    return open_objects(url)


def study_log(objects: Objects) -> StudyLog:
    """The log of the study at a place. Raises `StudyNotFound`, and `CorruptLog` where its beginning is missing."""
    log = StudyLog(objects)
    if not log.exists():
        raise StudyNotFound(f"{objects.url}: {NOTHING_HERE}")
    return log


def read_segments(objects: Objects, numbers: Iterable[int]) -> Iterator[tuple[int, bytes | None]]:
    """Reads the bytes of segments in the order given, several at once where that saves time; None where one is absent.

    Nothing is verified. As many are in memory as the store has lanes.
    """
    waiting = iter(numbers)
    with ThreadPoolExecutor(objects.lanes) as pool:
        while window := list(islice(waiting, objects.lanes)):
            bodies = pool.map(lambda number: objects.read(segment_key(number)), window)
            yield from zip(window, bodies, strict=True)
