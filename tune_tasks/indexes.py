"""What is derived from all trials of a state, kept up to date from those that changed instead of being made anew.

An index is a memo and nothing else: it holds for any state exactly what a fresh one would, so that a decision that
uses it still depends on the state alone. It lives and goes with its state, and no log or snapshot knows it. This
module must not decide anything.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

if TYPE_CHECKING:
    from tune_tasks.study import StudyState, Trial


class Index(Protocol):
    """Something derived from trials."""

    def take(self, state: StudyState, trial: Trial) -> None:
        """Takes in a trial that is new or has changed; called again with the same one, it changes nothing."""
        ...


I = TypeVar("I", bound=Index)  # noqa: E741  # an index
K = TypeVar("K", bound=Any)


@dataclass(slots=True)
class _Entry:
    index: Index
    seen: int


class Changes:
    """Notes which trials of one state changed, and brings its indexes up to date."""

    def __init__(self) -> None:
        self._count = 0
        self._last: dict[int, int] = {}  # in the order of the last change
        self._indexes: dict[Hashable, _Entry] = {}

    def note(self, number: int) -> None:
        """A trial was added or changed."""
        self._count += 1
        self._last.pop(number, None)
        self._last[number] = self._count

    def index(self, state: StudyState, key: Hashable, make: Callable[[], I]) -> I:
        """The index of this key as of now; made where there is none. `state` is the one to which this belongs.

        An index hears of trials in the order in which they changed last, so that queued ones come in their order.
        """
        entry = self._indexes.get(key)
        if entry is None:
            entry = self._indexes[key] = _Entry(make(), self._count)
            waiting = [state.trials[number] for number in state.queue]
            changed = [*(trial for trial in state.trials if trial.state != "queued"), *waiting]
        elif entry.seen == self._count:
            return cast("I", entry.index)
        else:
            seen = entry.seen
            recent = takewhile(lambda item: item[1] > seen, reversed(self._last.items()))
            changed = [state.trials[number] for number, _ in recent]
            changed.reverse()
        for trial in changed:
            entry.index.take(state, trial)
        entry.seen = self._count
        return cast("I", entry.index)


class Lowest(Generic[K]):
    """The lowest of values that change, by key: a heap that passes over what is not so any more."""

    def __init__(self) -> None:
        self._values: dict[K, float] = {}
        self._heap: list[tuple[float, K]] = []

    def put(self, key: K, value: float | None) -> None:
        """Sets the value of a key; None takes it out."""
        if value is None:
            self._values.pop(key, None)
        elif self._values.get(key) != value:
            self._values[key] = value
            heapq.heappush(self._heap, (value, key))
            if len(self._heap) > 2 * len(self._values) + 100:
                self._heap = sorted((value, key) for key, value in self._values.items())

    def first(self, count: int | None = 1) -> list[K]:
        """The keys of the `count` lowest values, the lowest first, of equals the smaller key; None for all."""
        found: list[tuple[float, K]] = []
        wanted = len(self._values) if count is None else count
        while self._heap and len(found) < wanted:
            item = heapq.heappop(self._heap)
            if self._values.get(item[1]) == item[0] and item not in found[-1:]:
                found.append(item)
        for item in found:
            heapq.heappush(self._heap, item)
        return [key for _, key in found]


class Ranking:
    """Trials by value, the lowest first, of equals the one with the lower number."""

    def __init__(self) -> None:
        self._values: dict[int, float] = {}
        self._sorted: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def __iter__(self) -> Iterator[int]:
        return (number for _, number in self._sorted)

    def put(self, number: int, value: float | None) -> None:
        """Sets the value of a trial; None takes it out."""
        known = self._values.get(number)
        if known == value:
            return
        if known is not None:
            del self._sorted[bisect_left(self._sorted, (known, number))]
        if value is None:
            del self._values[number]
        else:
            self._values[number] = value
            insort(self._sorted, (value, number))

    def rank(self, number: int) -> int:
        """The place of a trial that is in here, from 1 on."""
        return bisect_left(self._sorted, (self._values[number], number)) + 1


class Best(Lowest[int]):
    """The trial with the best value among those that did not fail."""

    def take(self, state: StudyState, trial: Trial) -> None:
        """See `Index.take`."""
        usable = trial.value is not None and trial.state != "failed"
        self.put(trial.number, state.sign * trial.value if usable and trial.value is not None else None)


class Queue:
    """The trials that wait: those that have run before, and the new ones, each in the order of the queue."""

    def __init__(self) -> None:
        self.again: dict[int, None] = {}
        self.new: dict[int, None] = {}

    def take(self, state: StudyState, trial: Trial) -> None:
        """See `Index.take`."""
        self.again.pop(trial.number, None)
        self.new.pop(trial.number, None)
        if trial.number in state.queue:
            (self.again if trial.attempts else self.new)[trial.number] = None
