"""Copies files through obstore where it is installed: large ones in parts, several parts at once.

Takes about half of the time and of the processor that fsspec's own copies take. This module must not decide what an
error means: whatever does not work here is done again over fsspec, whose reply decides. And it must not use obstore
in a forked process, where the threads of obstore are gone and every call hangs.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from importlib.util import find_spec
from itertools import chain
from mmap import mmap
from pathlib import Path
from typing import IO, Any
from weakref import finalize

from tune_tasks.store import obstores
from tune_tasks.store.copies import Copied

PART = 8 << 20
PARTS_AT_ONCE = 6
"""Parts of one file that are under way at once: one connection alone is slow on a network with a long way."""

_ROOM = 12
"""Parts of all files that this process copies: its memory must not grow with the threads that copy a checkpoint."""
_MOST_PARTS = 9000
"""Of an upload; S3 takes 10,000."""
_REST = 60.0
"""Seconds for which files go over fsspec after obstore has failed, so that an outage is not waited for twice."""

_process = os.getpid()
_log = logging.getLogger(__name__)


class FastFiles:
    """Moves the files of one bucket. None: nothing was decided, and it is for fsspec to do.

    `extra` is the one that installs fsspec's file system, `bucket` the first part of its paths, and `filesystem`
    returns the one of this process.
    """

    def __init__(self, extra: str, bucket: str, filesystem: Callable[[], Any]) -> None:
        self._extra = extra
        self._bucket = bucket
        self._filesystem = filesystem
        self._usable = find_spec("obstore") is not None
        self._rests_until = 0.0
        self._store: Any = None
        self._connecting = threading.Lock()

    def upload(self, source: Path, path: str) -> Copied | None:
        """Copies a file to `path`, whole or not at all, and hashes what it sends while it sends it."""
        return self._tried(lambda store, name: _upload(store, source, name), path)

    def download(self, path: str, target: Path, size: int) -> Copied | None:
        """Copies the first `size` bytes (fewer where there are fewer) to a file, and hashes what it writes."""
        return self._tried(lambda store, name: _download(store, name, target, size), path) if size else None

    def _tried(self, copy: Callable[[Any, str], Copied], path: str) -> Copied | None:
        if not self._usable or os.getpid() != _process or time.monotonic() < self._rests_until:
            return None
        try:
            return copy(self._connected(), path.removeprefix(f"{self._bucket}/"))
        except OSError:  # an object that is absent, or the file on this side: no reason to rest
            return None
        except obstores.Unsure as reason:
            self._usable = False
            _log.debug("files of %s go over fsspec and not obstore: %s", self._bucket, reason)
        except Exception as error:  # noqa: BLE001  # obstore's, or a client library's whose credentials were asked for
            self._rests_until = time.monotonic() + _REST
            _log.debug("files of %s go over fsspec for %g s: %s", self._bucket, _REST, type(error).__name__)
        return None

    def _connected(self) -> Any:
        with self._connecting:
            if self._store is None:
                self._store = obstores.connect(self._extra, self._filesystem(), self._bucket)
            return self._store


class _Room:
    """So many parts may be in memory. Who wants several waits until there is room for all, so that nobody is stuck."""

    def __init__(self, parts: int) -> None:
        self._free = parts
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, parts: int) -> Iterator[None]:
        """Room for the parts of one file that are under way at once."""
        parts = min(parts, PARTS_AT_ONCE)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= parts)
            self._free -= parts
        try:
            yield
        finally:
            with self._changed:
                self._free += parts
                self._changed.notify_all()


_room = _Room(_ROOM)


def _upload(store: Any, source: Path, path: str) -> Copied:
    from obstore import put

    digest, sizes = hashlib.sha256(), list[int]()
    with source.open("rb") as reader:
        length = os.fstat(reader.fileno()).st_size
        part = max(PART, length // _MOST_PARTS)
        with _room.taken(1 + length // part):
            parts = _read(reader, part, digest, sizes)
            first = next(parts, b"")
            if len(first) < part:
                put(store, path, first, use_multipart=False)
            else:
                put(store, path, chain([first], parts), chunk_size=part, max_concurrency=PARTS_AT_ONCE)
    return Copied(sum(sizes), digest.hexdigest())


def _read(reader: IO[bytes], part: int, digest: Any, sizes: list[int]) -> Iterator[bytes | memoryview]:
    """Reads and hashes part by part; obstore asks for the next one while others are under way.

    A small file is all in the first part. The memory of those after it is used again once obstore has dropped them:
    malloc would keep it, for each thread.
    """
    free = list[mmap]()
    data: bytes | memoryview = reader.read(part)
    while data:
        digest.update(data)
        sizes.append(len(data))
        yield data
        del data  # or this very part would never be free
        pages = free.pop() if free else mmap(-1, part)
        data = memoryview(pages)[: reader.readinto(pages)]  # type: ignore[attr-defined]
        finalize(data, free.append, pages)


def _download(store: Any, path: str, target: Path, size: int) -> Copied:
    digest, done = hashlib.sha256(), 0
    ranges = [(start, min(start + PART, size)) for start in range(0, size, PART)]
    with (
        _room.taken(len(ranges)),
        target.open("wb") as file,
        closing(_fetched(store, path, ranges)) as parts,
    ):
        for (start, end), data in zip(ranges, parts, strict=False):
            done += file.write(data)
            digest.update(data)
            if len(data) < end - start:
                break
    return Copied(done, digest.hexdigest())


def _fetched(store: Any, path: str, ranges: list[tuple[int, int]]) -> Generator[Any, None, None]:
    """Yields the ranges of an object in order; while one is written and hashed, the next ones are under way."""
    from obstore import get_range

    if len(ranges) == 1:  # the thread that asks is one of many already
        yield get_range(store, path, start=ranges[0][0], end=ranges[0][1])
        return
    pool, window = ThreadPoolExecutor(min(PARTS_AT_ONCE, len(ranges))), deque[Future[Any]]()
    try:
        for start, end in ranges:
            window.append(pool.submit(get_range, store, path, start=start, end=end))
            if len(window) == PARTS_AT_ONCE:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
