"""Tries a store again until it answers or a total deadline is over: the one place with back-off.

A wrapper around any backend; a backend itself raises `Unavailable` at once. Must not decide whether what was
written has landed: that is for the caller to read back.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tune_tasks.errors import Unavailable
from tune_tasks.store.names import Entry, check_key, check_prefix

if TYPE_CHECKING:
    from tune_tasks.store import Objects
    from tune_tasks.store.copies import Copied

_log = logging.getLogger(__name__)
_FIRST, _LONGEST = 0.05, 5.0
_QUIET = 0.5
"""Seconds of waiting that nobody needs to read about."""

T = TypeVar("T")


class Retrying:
    """A backend whose calls take at most `deadline` seconds, and a copy as long as it takes while it makes progress.

    `clock` and `sleep` are for tests with a clock of their own.
    """

    def __init__(
        self,
        inner: Objects,
        deadline: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inner = inner
        self._deadline = deadline
        self._clock = clock
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"<objects at {self.url}>"

    @property
    def url(self) -> str:
        """Where the objects lie, without credentials."""
        return self._inner.url

    @property
    def lanes(self) -> int:
        """How many reads are worth having under way at once."""
        return self._inner.lanes

    def create(self, key: str, data: bytes) -> bool:
        """See `Objects.create`. After a time-out the same object is sent again, so False may mean our own."""
        check_key(key)
        return self._patiently(f"create {key}", lambda: self._inner.create(key, data))

    def read(self, key: str) -> bytes | None:
        """See `Objects.read`."""
        check_key(key)
        return self._patiently(f"read {key}", lambda: self._inner.read(key))

    def replace(self, key: str, data: bytes) -> None:
        """See `Objects.replace`."""
        check_key(key)
        self._patiently(f"write {key}", lambda: self._inner.replace(key, data))

    def entries(self, prefix: str) -> list[Entry]:
        """See `Objects.entries`."""
        check_prefix(prefix)
        return self._patiently(f"list {prefix or 'all'}", lambda: self._inner.entries(prefix))

    def unfinished(self, before: float, *, remove: bool = False) -> list[Entry]:
        """See `Objects.unfinished`."""
        return self._patiently("look for unfinished objects", lambda: self._inner.unfinished(before, remove=remove))

    def list(self, prefix: str) -> list[str]:
        """See `Objects.list`."""
        check_prefix(prefix)
        return self._patiently(f"list {prefix or 'all'}", lambda: self._inner.list(prefix))

    def delete(self, key: str) -> None:
        """See `Objects.delete`."""
        check_key(key)
        self._patiently(f"delete {key}", lambda: self._inner.delete(key))

    def upload(self, source: Path, key: str) -> Copied:
        """See `Files.upload`. The deadline runs from the first failure, since a large file may take long."""
        check_key(key)
        return self._patiently(f"upload {key}", lambda: self._inner.upload(source, key), copies=True)

    def download(self, key: str, target: Path, size: int) -> Copied | None:
        """See `Files.download`. The deadline runs from the first failure, since a large file may take long."""
        check_key(key)
        return self._patiently(f"download {key}", lambda: self._inner.download(key, target, size), copies=True)

    def _patiently(self, what: str, call: Callable[[], T], *, copies: bool = False) -> T:
        began: float | None = None if copies else self._clock()
        delay, told = _FIRST, False
        while True:
            tried = self._clock()
            try:
                return call()
            except Unavailable as error:
                now = self._clock()
                began = now if began is None else began
                pause = delay * random.uniform(0.5, 1.0)  # noqa: S311  # only keeps writers from knocking in step
                # The next attempt may hang as long as this one did: it is not begun where it would pass the deadline.
                hang = 0.0 if copies else now - tried
                if now + pause + hang - began > self._deadline:
                    raise Unavailable(
                        f"{self.url}: cannot {what} within {self._deadline:g} s ({error}); try again later"
                    ) from None
                if not told and now + pause - began >= min(_QUIET, self._deadline / 2):
                    _log.warning("waiting up to %g s for %s to %s: %s", self._deadline, self.url, what, error)
                    told = True
            self._sleep(pause)
            delay = min(2 * delay, _LONGEST)
