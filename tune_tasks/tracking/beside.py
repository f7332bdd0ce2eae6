"""Starts the process that shows a study beside its launch step, and ends it with the step.

The step never waits for it longer than a moment. A step that is over soon starts none, and a loop over steps keeps
one. This module must not show anything itself, and must not put a credential into a command line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tune_tasks.store.credentials import given
from tune_tasks.tracking.following import PATIENCE, Trackers, behind, catch_up, in_one_line, to_stderr

if TYPE_CHECKING:
    from tune_tasks.studies import Study

DELAY = 10.0
"""Seconds that a step lasts before it is worth a process of its own."""
_MOMENT = 2.0
"""Seconds that the process is given to end in."""

_followed: set[str] = set()
_lock = threading.Lock()


def is_tracked(study: Study) -> bool:
    """Whether there is such a block around this call."""
    with _lock:
        return study.url in _followed


@contextmanager
def tracked(study: Study) -> Iterator[Beside]:
    """Has the study shown by a process of its own while the block runs, wherever its spec says so.

    None is started within another such block of this process for the same study, nor where its URL came with
    credentials, or with nothing but this process's memory behind it: these are shown when the study ends.
    """
    beside = Beside(study)
    try:
        if beside.wanted:
            threading.Thread(target=beside.run, name="tracking", daemon=True).start()
        yield beside
    finally:
        beside.end()


class Beside:
    """The process beside a step, which is started when the step has lasted for `DELAY` seconds."""

    def __init__(self, study: Study) -> None:
        self._study, self._variables = study, given()  # of the thread that runs the step
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self.wanted = _has_place(study) and _enter(study.url)

    def finish(self) -> None:
        """Lets a study that is done be shown whole, for `PATIENCE` seconds at most; here where there is no process.

        What every spec has is waited for only a moment: whoever promotes brings it up to date.
        """
        if self._process is None:
            catch_up(self._study, default=False)
            return
        asked_for = len(Trackers(self._study.spec, to_stderr, default=False)) > 0
        try:
            self._process.wait(PATIENCE if asked_for else _MOMENT)
        except subprocess.TimeoutExpired:
            if asked_for:
                to_stderr(behind(self._study.url))

    def run(self) -> None:
        """Runs the process until the step is over."""
        if self._over.wait(DELAY):
            return
        command = [sys.executable, "-m", "tune_tasks.tracking", self._study.url, "--parent", str(os.getpid())]
        try:
            process = subprocess.Popen(  # noqa: S603  # ours
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ, **self._variables}
            )
        except OSError as error:
            to_stderr(f"tracking: no process can be started: {error.strerror or error}")
            return
        self._process = process
        self._over.wait()
        process.terminate()  # and where this process ends before that, its child sees so
        try:
            process.wait(_MOMENT)
        except subprocess.TimeoutExpired:  # it hangs in a call to a server
            process.kill()
            process.wait()

    def end(self) -> None:
        """Has the process end, and does not wait for it."""
        self._over.set()
        if self.wanted:
            _leave(self._study.url)


def _has_place(study: Study) -> bool:
    """Whether there is something to show the study in, and another process can read it."""
    if study.private or study.clock is not None or study.url.startswith("memory://"):
        return False
    try:
        return bool(Trackers(study.spec, to_stderr).places(study.state, study.url))
    except Exception as error:  # noqa: BLE001  # a plug-in may raise anything, and the step goes on
        to_stderr(f"tracking: {in_one_line(error)}")
        return False


def _enter(url: str) -> bool:
    with _lock:
        first = url not in _followed
        _followed.add(url)
        return first


def _leave(url: str) -> None:
    with _lock:
        _followed.discard(url)
