"""How many tasks a worker has ahead: a few where trials are short, so that no worker waits for the driver's turn."""

from __future__ import annotations

import math
from collections import deque

SHORT = 0.1
"""Seconds. Longer trials are not handed ahead: the next one would be sampled without the results of this one."""
_AHEAD = 0.05
"""Seconds of work that a worker has ahead where trials are short: a turn of the driver, with a commit to disk."""
_MOST_AHEAD = 256


class Pace:
    """How long trials take, of late."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque([2 * SHORT], maxlen=32)

    def add(self, seconds: float) -> None:
        """Notes how long a trial took."""
        self._recent.append(max(seconds, 1e-6))

    @property
    def depth(self) -> int:
        """How many tasks a worker should have beside the one that it runs; none where trials are not short."""
        mean = sum(self._recent) / len(self._recent)
        return min(_MOST_AHEAD, math.ceil(_AHEAD / mean)) if mean <= SHORT else 0
