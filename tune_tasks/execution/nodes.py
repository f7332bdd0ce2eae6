"""Where trials can run now: the nodes of the cluster, but for those that go away and those that keep failing.

This module must not ask Ray for anything but what an autoscaler may add, and must not know the workers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from typing import NamedTuple

from tune_tasks.errors import ConfigError
from tune_tasks.execution import capacity, cluster
from tune_tasks.execution.capacity import Amounts
from tune_tasks.execution.lookout import Sight
from tune_tasks.execution.placement import Shape
from tune_tasks.sections import Budget

_UNSAID = 120.0
"""Seconds until a node has gone that did not say when it goes: two minutes are the longest notice of the clouds."""
_FALSE_ALARM = 60.0
"""Seconds after which a node that should have gone is used again."""
_DOUBT = 20.0
"""Seconds for which a node that did not answer gets no new worker: Ray, which takes up to 15 to see that a node has
gone, would put it there, and start it elsewhere only then."""
_AHEAD = 5
"""Slots that may be asked for of a small cluster at once: as Ray's autoscaler starts at least so many nodes."""
logger = logging.getLogger(__name__)


class Leaving(NamedTuple):
    """A node that goes away: why, by when if that was said, and when it is used again if it is still there."""

    why: str
    deadline: float | None
    until: float


class Nodes:
    """What the last look at the cluster showed, and what was heard of its nodes since."""

    def __init__(self, budget: Budget, shape: Shape, sight: Sight, *, autoscaler: bool = False) -> None:
        """`shape` is that of most trials: slots are counted in it; `autoscaler`: one may add nodes."""
        self._budget, self._shape, self._autoscaler = budget, shape, autoscaler
        self._avoided: frozenset[str] = frozenset()
        self._sight = sight._replace(nodes={})
        self.gone: frozenset[str] = frozenset()
        """The nodes that were there once."""
        self.leaving: dict[str, Leaving] = {}
        self.shunned: frozenset[str] = frozenset()
        """The nodes that failed too often, as long as there are others."""
        self._doubted: dict[str, float] = {}
        self.slots = 0
        """How many trials run at once; at least 1, as nodes may come."""
        self.see(sight)

    @property
    def present(self) -> Collection[str]:
        """The nodes that live."""
        return self._sight.nodes.keys()

    @property
    def ahead(self) -> int:
        """How many workers more than there are slots an autoscaler may be asked for: as many again, and it goes on.

        None where the concurrency alone says how many workers there are: those that find no place ask for one.
        """
        concurrency = self._budget.concurrency
        if not self._autoscaler or (concurrency is not None and self._budget.share == 1):
            return 0
        most = max(self.slots, _AHEAD)
        return most if concurrency is None else max(0, min(most, concurrency - self.slots))

    def see(self, sight: Sight) -> None:
        """Takes over what a look at the cluster showed, once."""
        if sight is self._sight:
            return
        self.gone = (self.gone | self._sight.nodes.keys()) - sight.nodes.keys()
        self._sight = sight
        for node, deadline in sight.draining.items():
            self._expect(node, "Ray drains its node", deadline)
        now = time.time()
        still = (node for node in sight.nodes if node in self.leaving)
        self.leaving = {node: self.leaving[node] for node in still if self.leaving[node].until > now}
        self._count()

    def notice(self, node: str, why: str, deadline: float | None) -> None:
        """Notes that a node will go away."""
        if node not in self.leaving:
            self._expect(node, why, deadline)
            self._count()

    def avoid(self, nodes: Collection[str]) -> None:
        """Notes which nodes are to be avoided from now on."""
        if self._avoided != set(nodes):
            self._avoided = frozenset(nodes)
            self._count()

    def doubt(self, nodes: Collection[str]) -> None:
        """Notes that nodes did not answer."""
        self._doubted.update(dict.fromkeys(nodes, time.time() + _DOUBT))

    @property
    def closed(self) -> frozenset[str]:
        """The nodes that no new worker shall be put on: they failed, or do not answer, and there are others."""
        now, there = time.time(), self._sight.nodes
        doubtful = {node for node in there if self._doubted.get(node, 0.0) > now}
        others = {node: has for node, has in there.items() if node not in doubtful | self.leaving.keys()}
        return self.shunned | doubtful if doubtful and self._fit(others) else self.shunned

    def check(self, shape: Shape) -> None:
        """Raises `ConfigError` where no node that there is, or that an autoscaler might add, can hold a trial."""
        needs, has = shape.needs, list(self._sight.nodes.values())
        strategy = shape.resources.strategy
        if not needs or capacity.count(needs, strategy, has):
            return
        if capacity.count(needs, strategy, [*has, *cluster.to_come() * len(needs)]):
            return
        if self._autoscaler and not cluster.to_come():
            logger.warning("no node that is there can hold a trial; it is left to the cluster's autoscaler to add one")
            return
        own, *gang = (capacity.shown(need) for need in needs)
        beside = f" and for its gang {'; '.join(gang)} ({strategy})" if gang else ""
        where = "no node" if not gang or strategy == "STRICT_PACK" else "the cluster"
        verb = f"{where} can hold" if where == "no node" else f"{where} cannot hold"
        raise ConfigError(f"resources: {verb} a trial that needs {own}{beside}; {capacity.offer(needs, has)}")

    def _expect(self, node: str, why: str, deadline: float | None) -> None:
        until = (deadline or time.time() + _UNSAID) + _FALSE_ALARM
        self.leaving[node] = Leaving(why, deadline, until)

    def _count(self) -> None:
        there = {node: has for node, has in self._sight.nodes.items() if node not in self.leaving}
        trusted = {node: has for node, has in there.items() if node not in self._avoided}
        fit = self._fit(trusted)
        self.shunned = frozenset(self._avoided & self._sight.nodes.keys()) if fit else frozenset()
        most = max(1, int((fit or self._fit(there)) * self._budget.share + 1e-9))
        self.slots = min(most, self._budget.concurrency or most)

    def _fit(self, nodes: Mapping[str, Amounts]) -> int:
        needs = self._shape.needs
        if not nodes:
            return 0
        if not needs:  # trials that ask for nothing: as many as there are cores
            return self._budget.concurrency or int(sum(node.get("CPU", 0) for node in nodes.values()))
        return capacity.count(needs, self._shape.resources.strategy, list(nodes.values()))
