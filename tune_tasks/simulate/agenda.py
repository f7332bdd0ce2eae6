"""A virtual clock, and what will happen on it. This module must not sleep, or read a real clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Agenda:
    """Actions by their time; of equal times, in the order in which they were put down. Time is in seconds from 0 on."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = count()
        self._coming: list[tuple[float, int, Callable[[], None]]] = []

    @property
    def next(self) -> float:
        """When something happens next; now where nothing ever will."""
        return self._coming[0][0] if self._coming else self.now

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Has something done at a time; what lies in the past is done next."""
        heapq.heappush(self._coming, (max(time, self.now), next(self._order), action))

    def advance(self, until: float) -> bool:
        """Does the next thing that is due by `until`; where there is none, goes on to `until` and returns False."""
        if not self._coming or self._coming[0][0] > until:
            self.now = max(self.now, until)
            return False
        self.now, _, action = heapq.heappop(self._coming)
        action()
        return True
