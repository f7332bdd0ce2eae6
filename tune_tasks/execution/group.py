"""The facts that will leave as one commit: events, and reports that become one table when something follows them.

It knows how large the commit would be and since when it waits. This module must not commit, and must not apply
anything to a state.
"""

from __future__ import annotations

from collections.abc import Callable

from tune_tasks.events import Event, Reports
from tune_tasks.execution import Row

BYTES = 4 << 20
"""About how large a commit may get before it leaves early, so that a segment stays well below its limit of 8 MiB."""
_CELL, _CHARACTER = 25, 6
"""Most bytes of one metric's value, and of one character of a text, in the JSON of an event."""


class Group:
    """What has happened since the last commit."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.events: list[Event] = []
        self.rows = 0
        self._table: list[Row] = []
        self._names: set[str] = set()
        self._weight = 0
        self._began = 0.0

    def __bool__(self) -> bool:
        return bool(self.events or self._table)

    @property
    def age(self) -> float:
        """Seconds since the first fact; 0 while there is none."""
        return self._clock() - self._began if self else 0.0

    @property
    def heavy(self) -> bool:
        """Whether it must leave before it gets any larger."""
        return self._weight + self._table_weight() >= BYTES

    def add(self, event: Event) -> None:
        """Adds an event, behind all reports so far."""
        self._begin()
        self.settle()
        self.events.append(event)
        self._weight += _CHARACTER * len(getattr(event, "error", None) or "")

    def report(self, row: Row) -> None:
        """Adds a report to the table, where it has about the same metrics as those in there."""
        self._begin()
        if not row.metrics.keys() <= self._names:
            if 2 * len(row.metrics) < len(self._names | row.metrics.keys()):
                self.settle()  # in one table they would be mostly holes
            self._names |= row.metrics.keys()
        self._table.append(row)
        self.rows += 1

    def settle(self) -> None:
        """Turns the reports at hand into one event."""
        if self._table:
            self._weight += self._table_weight() + _CHARACTER * sum(map(len, self._names))
            self.events.append(reports(self._table))
        self._table, self._names = [], set()

    def clear(self) -> None:
        """Forgets everything: it is committed."""
        self.events.clear()
        self.rows = self._weight = 0

    def _begin(self) -> None:
        if not self:
            self._began = self._clock()

    def _table_weight(self) -> int:
        return _CELL * (len(self._names) + 4) * len(self._table)


def reports(rows: list[Row]) -> Reports:
    """Puts rows into columns. Not validated: the session that measured them has done so."""
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    return Reports.model_construct(
        trial=[row.trial for row in rows],
        attempt=[row.attempt for row in rows],
        step=[row.step for row in rows],
        time=[row.time for row in rows],
        metrics={name: [row.metrics.get(name) for row in rows] for name in names},
    )
