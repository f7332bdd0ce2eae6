"""Objects as files below one folder. Works on NFS by the same rule, since link(2) is its one atomic create.

Not fsspec's local file system: its create looks first and writes then, so two writers can both win, it never calls
fsync, and a crash leaves a part of a file under the final name. This module must not retry, and not read a cache.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from tune_tasks.errors import ConfigError, TuneError, Unavailable
from tune_tasks.store.copies import Copied, copy
from tune_tasks.store.names import TEMPORARY, Entry

_MENDABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EOPNOTSUPP, errno.ENAMETOOLONG, errno.ELOOP}
"""What only a person can mend: permission, a read-only disk, a file system without hard links, a name too long."""


class LocalObjects:
    """The objects below one folder, which is made by the first write and is not there before."""

    lanes = 1

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root.expanduser()))  # noqa: PTH100  # resolve() would follow links
        self.url = str(self._root)
        self._made: set[Path] = set()

    def create(self, key: str, data: bytes) -> bool:
        """See `Objects.create`: a temporary file gets its final name by link(2) once it is whole on the disk."""
        path = self._root / key
        with self._translated(), self._temporary(path) as (temporary, folders):
            _write(temporary, data)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            _sync(folders)
            return True

    def read(self, key: str) -> bytes | None:
        """See `Objects.read`."""
        with self._translated():
            try:
                return (self._root / key).read_bytes()
            except FileNotFoundError:
                return None

    def replace(self, key: str, data: bytes) -> None:
        """See `Objects.replace`; a reader sees the old object or the new one, never a part."""
        path = self._root / key
        with self._translated(), self._temporary(path) as (temporary, folders):
            _write(temporary, data)
            temporary.rename(path)
            _sync(folders)

    def entries(self, prefix: str) -> list[Entry]:
        """See `Objects.entries`; by the clock of the disk's machine."""
        found = []
        for key in self.list(prefix):
            with self._translated(), suppress(FileNotFoundError):  # deleted by someone since it was listed
                found.append(_entry(key, self._root / key))
        return found

    def unfinished(self, before: float, *, remove: bool = False) -> list[Entry]:
        """See `Objects.unfinished`: the temporary files."""
        found = []
        with self._translated():
            for path in sorted(self._root.rglob(f"{TEMPORARY}*")):
                with suppress(FileNotFoundError):  # finished, or removed by its writer
                    entry = _entry(path.relative_to(self._root).as_posix(), path)
                    if entry.modified < before:
                        found.append(entry)
                        if remove:
                            path.unlink()
        return found

    def list(self, prefix: str) -> list[str]:
        """See `Objects.list`; unfinished files are not objects."""
        top, _, start = f"{self._root}/{prefix}".rpartition("/")
        with self._translated():
            return sorted(path[len(self.url) + 1 :] for path in self._below(top, start))

    def delete(self, key: str) -> None:
        """See `Objects.delete`; folders that become empty go too, as no object store would show them."""
        path = self._root / key
        with self._translated():
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder not in self._made and self._root not in folder.parents:
                    break
                try:
                    folder.rmdir()
                except OSError:
                    break
                self._made.discard(folder)

    def upload(self, source: Path, key: str) -> Copied:
        """See `Files.upload`. Writes under the final name: nobody reads a checkpoint before its manifest is there."""
        path = self._root / key
        with source.open("rb") as reader, self._translated():
            writer, folders = self._opened(path)
            try:
                with writer:
                    copied = copy(reader, writer)
                    os.fsync(writer.fileno())
            except BaseException:
                path.unlink(missing_ok=True)  # a part of a checkpoint would keep a full disk full
                raise
            _sync(folders)
        return copied

    def download(self, key: str, target: Path, size: int) -> Copied | None:
        """See `Files.download`."""
        with self._translated():
            try:
                reader = (self._root / key).open("rb")
            except FileNotFoundError:
                return None
            with reader, target.open("wb") as writer:
                return copy(reader, writer, size)

    @contextmanager
    def _temporary(self, path: Path) -> Iterator[tuple[Path, set[Path]]]:
        """Makes an empty temporary file beside a path, and removes it whatever happens; with the folders to sync."""
        temporary = path.with_name(f"{TEMPORARY}{uuid4().hex}")
        file, folders = self._opened(temporary)
        file.close()
        try:
            yield temporary, folders
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _opened(self, path: Path) -> tuple[IO[bytes], set[Path]]:
        """Opens a file for writing, and tells which folders get new names by that, to be synced after the file."""
        try:  # looking for the folder first would cost every commit a call
            return path.open("wb"), {path.parent}
        except FileNotFoundError:
            changed = self._make(path.parent)
            return path.open("wb"), {path.parent, *changed}

    def _make(self, folder: Path) -> set[Path]:
        """Makes a folder, remembers what was not there before, and tells which folders have a new name in them."""
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        for parent in reversed(missing):
            with suppress(FileExistsError):  # another writer was first
                parent.mkdir()
                self._made.add(parent)
        return {parent.parent for parent in missing}

    def _below(self, top: str, start: str) -> Iterator[str]:
        """Walks the files below a folder whose names in it begin with `start`."""
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(top) as entries:
            for entry in entries:
                if not entry.name.startswith(start) or entry.name.startswith(TEMPORARY):
                    continue
                if entry.is_dir():
                    yield from self._below(entry.path, "")
                else:
                    yield entry.path

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._named(error) from None

    def _named(self, error: OSError) -> TuneError:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        where = error.filename if isinstance(error.filename, str) else self.url
        if error.errno in {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}:
            return ConfigError(f"store: {where}: {reason}; the store must be a folder")
        if error.errno in _MENDABLE:
            return ConfigError(f"store: {where}: {reason}; choose another store, or mend this one")
        return Unavailable(f"{where}: {reason}")


def _entry(key: str, path: Path) -> Entry:
    status = path.stat()
    return Entry(key, status.st_size, status.st_mtime)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def _sync(folders: Iterable[Path]) -> None:
    """Makes the names in these folders survive a power failure."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
