"""Finds out, before a study is created, whether a store keeps the promise that the log rests on.

Must leave nothing behind, whatever it finds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from tune_tasks.errors import ConfigError

if TYPE_CHECKING:
    from tune_tasks.store import Objects


def probe(objects: Objects) -> None:
    """Creates one random key twice; the second must be refused, and the first must be what is there.

    Several stores accept the condition and ignore it, which would let two drivers write over each other. Raises
    `ConfigError` for such a store, for one that may not be written, and for a bucket that does not exist;
    `Unavailable` where the store does not answer.
    """
    key, first, second = f"probe/{uuid4().hex}", b"first", b"second"
    objects.create(key, first)  # False may be this very call, when its first reply was lost
    try:
        twice = objects.create(key, second)
        found = objects.read(key)
    finally:
        objects.delete(key)
    if twice or found != first:
        raise ConfigError(
            f"store: {objects.url} cannot create an object only if it is absent, so two drivers could write over each "
            "other; choose another store, or set unsafe_single_writer: true in the spec and never run two at once"
        )
