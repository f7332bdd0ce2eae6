"""Makes a run a function of its seed: time, random names and jitter come from it, and from nothing else.

The store's bytes are then the same for the same seed, which is how a failure that was found once is found again.
"""

from __future__ import annotations

import importlib
import random
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch
from weakref import WeakSet

EPOCH = 1_700_000_000.0
TICK = 1 / 1024
"""A binary fraction: times are exact, so that sums of them do not depend on their order."""


class Clock:
    """Goes on by a tick whenever it is read, so that no two events have the same time."""

    def __init__(self) -> None:
        self.now = EPOCH

    def __call__(self) -> float:
        self.now += TICK
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@contextmanager
def determined(seed: object) -> Iterator[Clock]:
    """Everything inside is drawn from the seed. `yield`s the clock, for what sleeps."""
    names, clock = random.Random(f"names {seed}"), Clock()
    family, start = WeakSet([threading.current_thread()]), threading.Thread.start

    def started(thread: threading.Thread) -> None:
        if threading.current_thread() in family:
            family.add(thread)
        start(thread)

    def ours(made: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
        """What earlier tests left running, and what that starts, must not draw from the seed, nor wind its clock."""

        def either(*args: Any) -> Any:
            return made(*args) if threading.current_thread() in family else real(*args)

        return either

    def name() -> uuid.UUID:
        return uuid.UUID(int=names.getrandbits(128), version=4)

    with ExitStack() as stack:
        for module, attribute, made in (
            (time, "time", clock),
            (time, "monotonic", clock),  # the driver tells the time by both
            (secrets, "token_hex", lambda size=32: names.randbytes(size).hex()),
            (uuid, "uuid4", name),
            ("tune_tasks.store.checkpoints", "uuid4", name),
            ("tune_tasks.store.probe", "uuid4", name),
            ("socket", "gethostname", lambda: "machine"),
            ("os", "getpid", lambda: 1),
        ):
            owner = importlib.import_module(module) if isinstance(module, str) else module
            stack.enter_context(patch.object(owner, attribute, ours(made, getattr(owner, attribute))))
        stack.enter_context(patch("tune_tasks.store.retry.random", random.Random(f"jitter {seed}")))
        stack.enter_context(patch.object(threading.Thread, "start", started))
        yield clock
