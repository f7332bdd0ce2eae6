"""Actors that take turns: each is a thread, but only one runs, and only as far as its next call to the store."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Actor:
    """Some work on a thread that moves when it is told to. What it raised is in `error` once it is `over`."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name, self.over = name, False
        self.error: BaseException | None = None
        self._work = work
        self._mine, self._back = threading.Lock(), threading.Lock()  # released by the other thread
        self._mine.acquire()
        self._back.acquire()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def move(self) -> None:
        """Lets it run up to where it next waits for its turn, or to its end."""
        self._mine.release()
        self._back.acquire()
        if self.over:
            self._thread.join()

    def wait(self) -> None:
        """Called by the work itself: this is where others may go first."""
        self._back.release()
        self._mine.acquire()

    def _run(self) -> None:
        self._mine.acquire()
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  # whatever it is, who moves the actor wants to know
            self.error = error
        self.over = True
        self._back.release()
