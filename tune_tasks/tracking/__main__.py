"""The process beside a launch step: `python -m tune_tasks.tracking URL --parent PID` follows the log, and shows it.

It ends when it is told to, when the study is done and shown, or when the process that started it is gone. What it has
to say of itself is one line on stderr for each tracker that fails; whatever else its libraries print is dropped. This
module must not be waited for.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from tune_tasks.errors import TuneError
from tune_tasks.tracking.following import POLL, Followed, in_one_line

_NICE = 19
_LOOK = 1.0
"""Seconds between two looks at whether the parent still lives."""
_GLANCE = 0.1
"""Seconds between two looks at whether it was told to end."""
_LAST = 1.5
"""Seconds in which to show what is new after it was told to end."""


def main(arguments: list[str] | None = None) -> int:
    """Follows a study until its end, or the parent's."""
    parser = argparse.ArgumentParser(prog="python -m tune_tasks.tracking", description=__doc__.partition("\n")[0])
    parser.add_argument("study", metavar="URL")
    parser.add_argument("--parent", type=int, required=True, help="the process with which this one ends")
    options = parser.parse_args(arguments)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    end = End()
    signal.signal(signal.SIGTERM, end.ask)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this one
    threading.Thread(target=_end_with, args=(options.parent,), daemon=True).start()
    say = _silence()
    try:
        follow(Followed(options.study, say), end)
    except TuneError as error:
        say(f"tracking: {in_one_line(error)}")
        return error.exit_code
    return 0


def follow(followed: Followed, end: End) -> None:
    """Shows what is committed until the study is done, or `end`; then what is new, as far as there is time."""
    while True:
        current = followed.update(end.has_time, at_once=end.asked)
        if end.asked or (followed.state.done and (current or followed.shown.failing)):
            return
        end.wait(POLL)
        followed.read()


class End:
    """When this process has to end."""

    def __init__(self) -> None:
        self.asked = False
        self._limit = math.inf

    def ask(self, *_: object) -> None:
        """Ends it soon."""
        self._limit = min(self._limit, time.monotonic() + _LAST)
        self.asked = True

    def wait(self, seconds: float) -> None:
        """Waits so long, or until it is asked. No lock: what asks is a signal's handler, in this same thread."""
        until = time.monotonic() + seconds
        while not self.asked and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _GLANCE))

    def has_time(self) -> bool:
        """Whether there is time to show more."""
        return time.monotonic() < self._limit


def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone, also where it hangs in a call."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(0)


def _silence() -> Callable[[str], None]:
    """Drops what is printed here from now on, and returns what says a line on the stderr that was given."""
    given = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nothing, descriptor)

    def say(line: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads it any more
            os.write(given, f"{line}\n".encode())

    return say


if __name__ == "__main__":
    sys.exit(main())
