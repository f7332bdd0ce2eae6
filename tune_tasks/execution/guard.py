"""Ends what an embedded Ray leaves behind when its driver is killed: run as a process of its own, by its path.

Ray ties its raylet to the driver, but the raylet's helpers, of 100 MB each, go on for a minute, and what a trial
started may go on for ever. What belongs to a Ray is known by its name and by the log files that it holds open: parents
are gone by then, and Ray overwrites the environments. This file must need nothing but the standard library, and must
end nothing that Ray or one of its workers did not start.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

_GRACE = 2.0
"""Seconds in which they may end by themselves."""
_GIVE_UP = 20.0


def members(session: Path) -> set[int]:
    """Ray's helpers and workers of one session; its drivers hold its files too, but are not called so."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to someone else
            named = (entry / "cmdline").read_bytes().startswith(b"ray::")
            if named and any(file.readlink().is_relative_to(session) for file in (entry / "fd").iterdir()):
                found.add(int(entry.name))
    return found


def family(found: set[int]) -> set[int]:
    """These processes and all that they started, as long as the parents live."""
    children: dict[int, set[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, set()).add(int(entry.parent.name))
    reached, fresh = set(found), set(found)
    while fresh:
        fresh = set().union(*(children.get(pid, set()) for pid in fresh)) - reached
        reached |= fresh
    return reached


def main(session: Path) -> None:
    """Waits for the end of its input, which is the end of the driver, and then for the end of all members."""
    sys.stdin.buffer.read()
    handles: dict[int, int] = {}  # a handle goes on meaning one process when its number is used again
    began = time.monotonic()
    while time.monotonic() < began + _GIVE_UP:
        for pid in family(members(session)) - handles.keys():
            with contextlib.suppress(OSError):
                handles[pid] = os.pidfd_open(pid)
        late = time.monotonic() > began + _GRACE
        left = [handle for handle in handles.values() if _lives(handle, end=late)]
        if not left:
            return
        time.sleep(0.1)


def _lives(handle: int, *, end: bool) -> bool:
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL if end else 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
