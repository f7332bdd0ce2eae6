"""Ends what an embedded Ray leaves behind when its driver is killed: run as a process of its own, by its path.

Ray ties its raylet to the driver, but the raylet's helpers, of 100 MB each, go on for a minute, and what a trial
started may go on for ever. All of them carry the raylet's number in their environment. This file must need nothing
but the standard library.
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


def members(raylet: str) -> set[int]:
    """The processes that a raylet started, and those that these started."""
    mark = f"RAY_RAYLET_PID={raylet}".encode()
    found = set()
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to someone else
            if mark in entry.read_bytes().split(b"\0"):
                found.add(int(entry.parent.name))
    return found - {os.getpid()}


def main(raylet: str) -> None:
    """Waits for the end of its input, which is the end of the driver, and then for the end of all members."""
    sys.stdin.buffer.read()
    began = time.monotonic()
    while time.monotonic() < began + _GIVE_UP and (left := members(raylet)):
        if time.monotonic() > began + _GRACE:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])
