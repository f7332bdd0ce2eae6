"""What the driver must know of its cluster beside its work: which nodes there are, which go away, and whether it lives.

A thread of its own asks, as a head that is gone would hold the driver up for minutes. This module must not act on
what it sees.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import NamedTuple

from tune_tasks.execution import cluster
from tune_tasks.execution.capacity import Amounts

logger = logging.getLogger(__name__)

_EVERY = 2.0
"""Seconds between two looks."""
_PATIENCE = 4.0
"""Seconds in which the head must answer."""
_MISSES = 3
"""Answers missed in a row that make a head lost: well before Ray ends the process that lost it, after a minute."""


class Sight(NamedTuple):
    """A cluster as it was at one look.

    `nodes` has what each node that lives has, by Ray's id; `draining` those that go away, with the time, in seconds
    since the epoch, by which they will have gone, if one was said; `lost` says why nothing can run here any more.
    """

    nodes: Mapping[str, Amounts]
    draining: Mapping[str, float | None]
    lost: str | None = None


def look() -> Sight:
    """Looks at the cluster once."""
    return Sight(cluster.nodes(), cluster.draining())


class Lookout:
    """Looks at the cluster that this process is attached to, every few seconds until it is closed."""

    def __init__(self, address: str | None) -> None:
        """`address`: of the cluster, as it was given to `cluster.attach`."""
        self.sight = look()
        self._head = cluster.head(address)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tune_tasks lookout", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, so that it is not in a call when this process leaves the Ray."""
        self._closed.set()
        self._thread.join(2 * _PATIENCE)

    def _watch(self) -> None:
        missed = 0
        while not self._closed.wait(_EVERY):
            try:
                cluster.knock(self._head, _PATIENCE)  # first: to ask a Ray without a head would take a minute
                self.sight, missed = look(), 0
            except OSError as error:
                missed += 1
                if missed >= _MISSES:
                    self.sight = self.sight._replace(lost=f"the Ray at {self._head} gives no answer any more: {error}")
            except Exception:  # a look that fails must not end the looking
                logger.debug("the cluster could not be looked at", exc_info=True)
