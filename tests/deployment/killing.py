"""A process that dies at a write: none of its writes reaches anything from then on, also none that would tidy up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class Killed(BaseException):
    """The process is gone."""


class Vandal:
    """Lets so many writes through, and then none: the next one `before` it happens, or `after`."""

    def __init__(self, allowed: int, when: str = "before") -> None:
        self.allowed, self.when = allowed, when
        self.writes = 0

    @property
    def dead(self) -> bool:
        return self.writes > self.allowed

    def around(self, real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if self.dead:
                raise Killed
            self.writes += 1
            if self.dead and self.when == "before":
                raise Killed
            result = real(*args, **options)
            if self.dead:
                raise Killed
            return result

        return call


@contextmanager
def dying(writes: list[tuple[Any, str]], allowed: int, when: str = "before") -> Iterator[Vandal]:
    """A process that dies at one of these calls, each an owner and a name; it may as well live to its end."""
    vandal = Vandal(allowed, when)
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in writes:
            patch.setattr(owner, name, vandal.around(getattr(owner, name)))
        try:
            yield vandal
        except Killed:
            assert vandal.dead
