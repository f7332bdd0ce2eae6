"""What a canary's figures say: whether it may go on, and whether it has passed.

Pure functions of figures. This module must not send a request, or read a clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tune_tasks.delivery import Canary
from tune_tasks.events import Value

ENOUGH = 100
"""Requests before which a few failures may still turn out to be few enough, and a few slow answers too."""


class Figures(Value):
    """What a gateway has seen of a canary: its requests, those that it failed, and the seconds of those it answered."""

    requests: int = 0
    errors: int = 0
    latencies: tuple[float, ...] = ()

    @property
    def latency(self) -> float | None:
        """The 95th percentile in seconds; None before there is an answer."""
        return percentile(self.latencies, 0.95)

    def told(self) -> str:
        """The figures in words."""
        slow = "" if self.latency is None else f", 95 % answered within {self.latency:.3g} s"
        return f"{self.errors} of its {self.requests} requests failed{slow}"


def objection(figures: Figures, canary: Canary, *, over: bool) -> str | None:
    """Says why the canary has to go; None while it may stay. `over`: its time is over, so the figures are final."""
    counted = figures.requests if over else max(figures.requests, ENOUGH)
    if figures.errors > canary.max_errors * counted:
        return f"{figures.told()}; at most {canary.max_errors:.3g} of them may"
    slow, limit = figures.latency, canary.max_latency
    if slow is not None and limit is not None and slow > limit and (over or len(figures.latencies) >= ENOUGH):
        return f"{figures.told()}; at most {limit:g} s are allowed"
    return None


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of the values does not exceed (nearest rank); None of no values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
