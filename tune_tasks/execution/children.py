"""Ends the processes that an attempt started and left behind, on a worker that goes on to the next one.

They would hold memory and GPUs for as long as the worker lives. The worker adopts those whose parents are gone, so all
of them can be found. This module must not end what was there before the attempt, nor what Python keeps for the process
as a whole, and must cost nothing where there is no child.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

GRACE = 2.0
"""Seconds from SIGTERM to SIGKILL."""
_ROUNDS = 10
"""How often we look again for what the ended ones started meanwhile."""
_SET_CHILD_SUBREAPER = 36
_KEPT = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver", b"loky.backend")
"""In the command lines of helpers that Python and joblib start once for a process, and use in all later trials."""


class Child(NamedTuple):
    """A process below this one. Its number alone may mean another one later."""

    pid: int
    began: str


def adopt() -> None:
    """Makes this process the parent of those below it that lose theirs."""
    import ctypes

    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Children:
    """What an attempt started: all but what was there when `keep` was last called, by its making or later."""

    def __init__(self) -> None:
        self.keep()

    def keep(self) -> None:
        """Whatever is there now belongs to the worker."""
        self._before: set[Child] = set(_below()) if _any() else set()

    def end(self) -> list[str]:
        """Ends all that came since, politely first, and gives the command lines of those that still ran."""
        ended: list[str] = []
        for _ in range(_ROUNDS):
            left = [child for child in _below() if child not in self._before] if _any() else []
            if not left:
                break
            ended += [_name(child.pid) for child in left if not _is_over(child.pid)]
            _end(left)
        return ended


def _any() -> bool:
    """Whether this process has any child, in one system call."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _below() -> Iterator[Child]:
    """All processes below this one but the helpers that are kept, and what waits for another parent to collect it."""
    own = os.getpid()
    waiting = _children_of(own)
    while waiting:
        pid = waiting.pop()
        waiting += _children_of(pid)
        with contextlib.suppress(OSError):  # it has ended, and was waited for
            state, parent, *_, began = _stat(pid)[:20]
            is_ours = int(parent) == own
            if not (_is_helper(pid) if is_ours else state in "ZX"):
                yield Child(pid, began)


def _is_helper(pid: int) -> bool:
    """Whether a child is kept. Not asked for grandchildren: what a fork server makes has its command line."""
    line = Path(f"/proc/{pid}/cmdline").read_bytes()
    return any(word in line for word in _KEPT)


def _children_of(pid: int) -> list[int]:
    """The processes that any thread of one started. Not by pathlib: a worker of Ray has about 60 threads."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it has ended
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as listing:  # noqa: PTH123
                found += map(int, listing.read().split())
    return found


def _stat(pid: int) -> list[str]:
    """The fields behind the name, which may hold anything: state, parent, ... and at 19 when it began."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def _is_over(pid: int) -> bool:
    try:
        return _stat(pid)[0] in "ZX"
    except OSError:
        return True


def _name(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
    except OSError:
        words = b"?"
    return f"{pid} ({words[:100].decode(errors='replace')})"


def _end(children: list[Child]) -> None:
    """Ends processes and collects those that are ours to collect, so that no zombies pile up."""
    handles: dict[int, int] = {}
    for child in children:
        with contextlib.suppress(OSError):  # it has ended
            handles[child.pid] = os.pidfd_open(child.pid)
    try:
        _signal(handles, signal.SIGTERM)
        _wait(handles, GRACE)
        _signal(handles, signal.SIGKILL)
        _wait(handles, GRACE)
    finally:
        for handle in handles.values():
            os.close(handle)
    for pid in handles:
        with contextlib.suppress(OSError):  # not ours, but its parent's
            os.waitpid(pid, os.WNOHANG)


def _signal(handles: dict[int, int], number: signal.Signals) -> None:
    for handle in handles.values():
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            signal.pidfd_send_signal(handle, number)


def _wait(handles: dict[int, int], seconds: float) -> None:
    poll = select.poll()
    for handle in handles.values():
        poll.register(handle, select.POLLIN)
    left, until = len(handles), time.monotonic() + seconds
    while left and (remaining := until - time.monotonic()) > 0:
        for handle, _ in poll.poll(1000 * remaining):
            poll.unregister(handle)
            left -= 1
