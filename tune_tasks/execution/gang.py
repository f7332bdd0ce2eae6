"""The other nodes that the gang of a trial lies on, as the worker at its head sees them.

Ray says that a node is dead after 15 s at the earliest, and what a trial has there raises long before that: whether a
failure is the trial's own must be known when it ends. So the nodes are asked themselves. This module must not end
anything.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Self

from tune_tasks.execution import cluster

_LINGER = 3.0
"""Seconds for which nodes are asked: what runs on a machine that shuts down may end before its raylet does."""
_ANSWER = 4.0
"""Seconds in which a node must answer: it takes milliseconds, unless it is frozen, or its machine has gone."""
_PAUSE = 0.5


class Gang:
    """The nodes beside its own that a worker has something on; none, where it has no gang or all of it is here."""

    def __init__(self, places: Mapping[str, str]) -> None:
        """`places`: where each node listens, host:port, by Ray's id."""
        self._places = places

    @classmethod
    def here(cls) -> Self:
        """That of the worker that this process is."""
        import ray

        group = ray.util.get_current_placement_group()
        if group is None:
            return cls({})
        bundles = ray.util.placement_group_table(group)["bundles_to_node_id"]
        others = set(bundles.values()) - {ray.get_runtime_context().get_node_id()}
        return cls({node: place for node, place in cluster.places().items() if node in others})

    @property
    def nodes(self) -> tuple[str, ...]:
        """Ray's ids of them."""
        return tuple(self._places)

    def missing(self) -> str | None:
        """A node that has gone; None when all of them have answered for some seconds."""
        end = time.monotonic() + _LINGER
        while self._places:
            for node, place in self._places.items():
                try:
                    cluster.knock(place, _ANSWER)
                except OSError:
                    return node
            if time.monotonic() >= end:
                break
            time.sleep(_PAUSE)
        return None
