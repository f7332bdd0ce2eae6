"""What a simulation counts: slots by what they did, over time and in all. It must not grow with the study."""

from __future__ import annotations

from dataclasses import dataclass, field

BUCKETS = 240
"""Most points of a drawn line; where time goes on, two neighbours become one."""


class Usage:
    """Slots that are up, and slots that run a trial, added up over time and kept in buckets of equal width."""

    def __init__(self) -> None:
        self.busy = self.up = 0.0
        self._width = 1.0
        self._buckets: list[tuple[float, float]] = []
        self._at = 0.0
        self._level = (0, 0)

    def level(self, now: float, up: int, busy: int) -> None:
        """From `now` on, so many slots are up and busy."""
        self._pass(now)
        self._level = (up, busy)

    def line(self, now: float) -> list[tuple[float, float, float]]:
        """Time, and the average of slots that were up and busy, from each point to the next."""
        self._pass(now)
        starts = [self._width * index for index in range(len(self._buckets))]
        widths = [min(start + self._width, now) - start for start in starts]
        rows = zip(starts, widths, self._buckets, strict=True)
        return [(start, up / width, busy / width) for start, width, (up, busy) in rows if width > 0]

    def _pass(self, now: float) -> None:
        up, busy = self._level
        self.up += up * (now - self._at)
        self.busy += busy * (now - self._at)
        while now > self._width * BUCKETS:
            self._halve()
        while self._at < now:
            index = int(self._at / self._width)
            end = min(now, self._width * (index + 1))
            self._buckets += [(0.0, 0.0)] * (index + 1 - len(self._buckets))
            had = self._buckets[index]
            self._buckets[index] = had[0] + up * (end - self._at), had[1] + busy * (end - self._at)
            self._at = end

    def _halve(self) -> None:
        odd = [*self._buckets, (0.0, 0.0)] if len(self._buckets) % 2 else self._buckets
        pairs = zip(odd[::2], odd[1::2], strict=True)
        self._buckets = [(one[0] + two[0], one[1] + two[1]) for one, two in pairs]
        self._width *= 2


@dataclass(slots=True)
class Tally:
    """What happened: steps by trial, preemptions, and time by slot that had to be spent again, in seconds."""

    steps: int = 0
    repeated: int = 0
    lost: int = 0
    moved: int = 0
    preemptions: int = 0
    worked: float = 0.0
    wasted: float = 0.0
    furthest: dict[int, int] = field(default_factory=dict)

    def step(self, trial: int, step: int) -> None:
        """A trial has run a step; one that it, or an earlier attempt, ran before is repeated."""
        known = self.furthest.get(trial, 0)
        self.steps += 1
        self.repeated += step <= known
        self.furthest[trial] = max(known, step)
