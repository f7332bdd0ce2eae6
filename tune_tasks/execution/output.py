"""Where the output of a trial goes: one file an attempt, `logs/<trial>-<attempt>.txt` below the study's URL.

`Capture` takes the file descriptors of a worker's process, subprocesses and C code included; `Tee` copies what Python
prints and leaves it on the screen. An attempt that prints nothing leaves no file and costs a few system calls; one that
prints without end leaves the first and the last MiB of it. This module must not fail a trial because a log could not
be kept.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

from tune_tasks.execution.scratch import new_file
from tune_tasks.execution.shorten import SLACK, Shortener
from tune_tasks.store.names import TEMPORARY, split_url

logger = logging.getLogger(__name__)

_UPLOAD_SECONDS = 30.0
"""Between two uploads of output that still grows."""
_CUT_SECONDS = 0.1
"""Between two looks whether output is too long: a command like `yes` writes a gigabyte in a second."""


class Upload(Protocol):
    """Has a local file stored under a key below the study's URL; removes it afterwards where it is finished."""

    def __call__(self, key: str, file: Path, *, finished: bool) -> None:
        """Returns at once."""
        ...


class Output(Protocol):
    """Keeps what an attempt prints."""

    def begin(self, trial: int, attempt: int) -> None:
        """What is printed from now on belongs to this attempt."""
        ...

    def look(self) -> None:
        """Shows what there is so far; called now and then, from another thread."""
        ...

    def end(self) -> None:
        """The attempt is over."""
        ...

    def close(self) -> None:
        """There will be no other attempt."""
        ...


def log_key(trial: int, attempt: int) -> str:
    """Where the output of an attempt lies below the study's URL."""
    return f"logs/{trial:06d}-{attempt}.txt"


def local_path(url: str) -> Path | None:
    """The folder that a URL names on this machine; None where it names another store."""
    scheme, rest = split_url(url)
    return Path(rest).resolve() if scheme == "file" else None


def spare_path(root: Path, worker: str) -> Path:
    """The file of a worker for output that has no attempt's name yet: beside the others, so that it can be renamed."""
    return root / "logs" / f"{TEMPORARY}{worker}.txt"


def claim(url: str, worker: str, trial: int | None = None, attempt: int = 0) -> None:
    """Tidies up after a worker that is gone: its last output goes to the attempt that it ran, if it is named here."""
    root = local_path(url)
    if root is None:
        return
    spare = spare_path(root, worker)
    try:
        if trial is not None and spare.stat().st_size:
            spare.rename(root / log_key(trial, attempt))
        else:
            spare.unlink()
    except FileNotFoundError:
        pass  # its output bears the attempt's name already
    except OSError as error:
        logger.warning("output of a lost worker is left behind", extra={"path": str(spare), "error": str(error)})


class Capture:
    """Takes file descriptors 1 and 2 of this process, for good.

    Both lead to a spare file, which gets the name of the attempt once there is something in it: no file is made,
    opened or renamed for an attempt that prints nothing.
    """

    def __init__(self, url: str, worker: str, upload: Upload) -> None:
        import ctypes

        self._root, self._upload = local_path(url), upload
        self._flush_c = ctypes.CDLL(None).fflush
        self._spare = new_file("output") if self._root is None else spare_path(self._root, worker)
        self._spare.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._key: str | None = None
        self._shown, self._due = 0, 0.0
        self._shortener = Shortener()
        self._file = self._open()
        self._closed = threading.Event()
        threading.Thread(target=self._keep_short, name="output", daemon=True).start()

    def begin(self, trial: int, attempt: int) -> None:
        """Drops what was printed between two attempts: it belongs to neither."""
        self._flush()
        with self._lock:
            if os.fstat(self._file).st_size:
                os.ftruncate(self._file, 0)
            self._key, self._shown, self._shortener = log_key(trial, attempt), 0, Shortener()

    def look(self) -> None:
        """Gives the file the attempt's name, or uploads it, where it has changed."""
        with self._lock:
            size = os.fstat(self._file).st_size
            if self._key is None or size in (0, self._shown):
                return
            if self._root is not None:
                self._name(self._root / self._key)
            elif time.monotonic() < self._due:
                return
            else:
                self._due = time.monotonic() + _UPLOAD_SECONDS
                self._upload(self._key, self._spare, finished=False)
            self._shown = size

    def end(self) -> None:
        """Empties every buffer, and leaves the file to the attempt if there is anything in it."""
        self._flush()
        with self._lock:
            self._cut()
            if os.fstat(self._file).st_size and self._key is not None:
                self._give(self._key)
            self._key = None

    def close(self) -> None:
        """Removes the spare file."""
        self._closed.set()
        self._spare.unlink(missing_ok=True)

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # an objective may have closed or replaced it
                stream.flush()
        self._flush_c(None)  # printf in C code buffers a whole block when it writes to a file

    def _keep_short(self) -> None:
        while not self._closed.wait(_CUT_SECONDS):
            with self._lock:
                self._cut(SLACK)

    def _cut(self, slack: int = 0) -> None:
        try:
            self._shortener.cut(self._file, slack)
        except OSError as error:  # a full disk, or one that is gone
            logger.warning("output could not be shortened", extra={"key": self._key, "error": str(error)})

    def _give(self, key: str) -> None:
        if self._root is not None:
            self._name(self._root / key)
        else:
            finished = new_file("output")
            self._spare.rename(finished)
            self._upload(key, finished, finished=True)
        os.close(self._file)
        self._file = self._open()

    def _name(self, path: Path) -> None:
        if not self._shown:
            self._spare.rename(path)

    def _open(self) -> int:
        """Opens a new spare file. Appends: two descriptors and every subprocess write to it."""
        file = os.open(self._spare, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o666)
        os.dup2(file, 1)
        os.dup2(file, 2)
        return file


class Tee:
    """Copies what Python prints to a file, and leaves `sys.stdout` and `sys.stderr` where they lead."""

    def __init__(self, url: str, upload: Upload) -> None:
        self._root, self._upload = local_path(url), upload
        self._key = ""
        self._file: IO[str] | None = None
        self._shortener, self._uncut = Shortener(), 0
        self._streams: tuple[Any, Any] | None = None

    def begin(self, trial: int, attempt: int) -> None:
        """Puts a copy in the way of both streams."""
        self._key, self._file = log_key(trial, attempt), None
        self._shortener, self._uncut = Shortener(), 0
        self._streams = (sys.stdout, sys.stderr)
        sys.stdout, sys.stderr = (_Copied(stream, self._write) for stream in self._streams)

    def look(self) -> None:
        """Does nothing: each line is in the file at once."""

    def end(self) -> None:
        """Puts both streams back as they were."""
        if self._streams is not None:
            (sys.stdout, sys.stderr), self._streams = self._streams, None
        if self._file is not None:
            self._cut(self._file)
            self._file.close()
            if self._root is None:
                self._upload(self._key, Path(self._file.name), finished=True)

    def close(self) -> None:
        """Does nothing: no file is open between attempts."""

    def _write(self, text: str) -> None:
        if self._streams is None:
            return  # a thread that outlives its attempt still holds the copy
        if self._file is None:
            self._file = self._open()
        self._file.write(text)
        self._uncut += len(text)
        if self._uncut > SLACK:
            self._cut(self._file)

    def _cut(self, file: IO[str]) -> None:
        self._uncut = 0
        file.flush()
        self._shortener.cut(file.fileno())
        file.seek(0, os.SEEK_END)

    def _open(self) -> IO[str]:
        if self._root is None:
            path = new_file("output")
        else:
            path = self._root / self._key
            path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", buffering=1, encoding="utf-8", errors="replace")


class _Copied:
    """A text stream that is the one it stands for in everything, but also tells what is written."""

    def __init__(self, stream: Any, tell: Callable[[str], None]) -> None:
        self._stream, self._tell = stream, tell

    def write(self, text: str) -> int:
        self._tell(text)
        return int(self._stream.write(text))

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
