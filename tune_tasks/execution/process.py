"""A command in a process group of its own, with its output in our hands, that ends with whoever started it.

Read by one thread, without a helper thread: an exception in that thread finds nothing to wait for. This module must
not know what a command prints, and must not signal a number that may mean another process by now.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

GRACE = 5.0
"""Seconds from SIGTERM to SIGKILL."""
_LAST_WORDS = 1.0
"""Seconds in which output is still read from what got away from the group and holds the pipes open."""
_CHUNK = 1 << 16
_GUARD = 'read -r line || kill -s KILL -- "-$1"'
"""Waits for a line, which says that all is well; the end of its input is the end of whoever started the command."""

Stream = Literal["stdout", "stderr"]


class Running:
    """A command that runs, until `code` is its exit code; as a context manager, ends its whole group at the end.

    Raises `OSError` where it cannot be started.
    """

    def __init__(self, words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.code: int | None = None
        self._process = subprocess.Popen(  # noqa: S603  # it is the user's own command
            list(words),
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._selector = selectors.DefaultSelector()
        try:
            self._guard = _guard(self._process.pid)
            self._exit = os.pidfd_open(self._process.pid)
            self._selector.register(self._exit, selectors.EVENT_READ, None)
            for name in ("stdout", "stderr"):
                self._selector.register(getattr(self._process, name), selectors.EVENT_READ, name)
        except BaseException:
            self._signal(signal.SIGKILL)
            self._process.communicate()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for _ in self.end():
                pass
        finally:
            self._close()

    def read(self, timeout: float) -> Iterator[tuple[Stream, bytes]]:
        """What it printed, after a wait of at most `timeout` seconds for the first of it."""
        ready = self._selector.select(timeout)
        printed = False
        for key, _ in ready:
            if key.data is None:
                continue
            data = os.read(key.fd, _CHUNK)
            if data:
                printed = True
                yield key.data, data
            else:
                self._selector.unregister(key.fileobj)
        if ready and not printed and self._exited():
            yield from self.end()

    def notify(self, number: signal.Signals) -> None:
        """Sends a signal to the command alone: its children may not know it, and would die of it."""
        with contextlib.suppress(OSError):
            self._process.send_signal(number)

    def end(self) -> Iterator[tuple[Stream, bytes]]:
        """Ends the group, politely first, and gives what is printed meanwhile: nobody must wait for a full pipe."""
        if self.code is not None:
            return
        if _living(self._process.pid):
            self._signal(signal.SIGTERM)
            until = time.monotonic() + GRACE
            while time.monotonic() < until and _living(self._process.pid):
                yield from self._rest(0.05)
        self._signal(signal.SIGKILL)  # before the leader is reaped: until then its number means this group
        code = self._process.wait()
        until = time.monotonic() + _LAST_WORDS
        while time.monotonic() < until and (rest := list(self._rest(0))):
            yield from rest
        self.code = code

    def _rest(self, timeout: float) -> Iterator[tuple[Stream, bytes]]:
        if self._exit in self._selector.get_map():
            self._selector.unregister(self._exit)  # it would be ready at once for ever
        if not self._selector.get_map():
            time.sleep(timeout)
        for key, _ in self._selector.select(timeout):
            data = os.read(key.fd, _CHUNK)
            if data:
                yield key.data, data
            else:
                self._selector.unregister(key.fileobj)

    def _exited(self) -> bool:
        """Whether the command itself is over. It stays a zombie, so that its number keeps its meaning."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(OSError):  # a member may belong to another user
            os.killpg(self._process.pid, number)

    def _close(self) -> None:
        self._selector.close()
        os.close(self._exit)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        with contextlib.suppress(OSError):  # the guard may have been killed
            self._guard.communicate(b"well\n")


def _guard(group: int) -> subprocess.Popen[bytes]:
    """Starts what ends the group where this process is killed."""
    return subprocess.Popen(  # noqa: S603  # a constant, and a number
        ["/bin/sh", "-c", _GUARD, "guard", str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _living(group: int) -> bool:
    """Whether any process of a group still runs; those that are over and wait for their parent do not."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, _, of = entry.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(of) == group and state not in "ZX":
                return True
    return False
