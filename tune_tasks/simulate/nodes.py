"""The nodes of a pool as time goes on: asked for, up, warned, taken away, replaced, and what they cost until then.

They follow what is to run as an autoscaler makes them: a node that has run nothing for a while is given back, and the
next one is asked for when trials wait that the others cannot take.

This module must not know trials: who uses a slot sees that a node is leaving, and is told when it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from random import Random

from tune_tasks.simulate.agenda import Agenda
from tune_tasks.simulate.pool import HOUR, Pool


@dataclass(slots=True, eq=False)
class Node:
    """One machine from the moment it was asked for. `free` slots take trials while it is up and not warned.

    `idle`: when it last began to run nothing.
    """

    name: str
    place: int
    asked: float
    free: int = 0
    idle: float = 0.0
    up: bool = False
    leaving: bool = False
    gone: bool = False


class Nodes:
    """Begins with the whole pool. `taken` is called with each node that went, `changed` when slots came or went."""

    def __init__(
        self, pool: Pool, agenda: Agenda, seed: int, *, changed: Callable[[], None], taken: Callable[[Node], None]
    ) -> None:
        self._pool, self._agenda, self._seed = pool, agenda, seed
        self._changed, self._taken = changed, taken
        self._open: dict[str, Node] = {}
        self._alive: dict[str, Node] = {}
        self._avoided: set[str] = set()
        self._vacant: dict[int, None] = {}
        self._coming = 0
        self._generations = [0] * pool.nodes
        self._paid = self._starting = 0.0
        self.up = 0
        """Slots on nodes that are up."""
        self.preemptions = 0
        for place in range(pool.nodes):
            self._ask(place)
        for loss in pool.trace:
            agenda.at(max(0.0, loss.time - pool.notice), lambda loss=loss: self._trace(loss.time, loss.down))  # type: ignore[misc]

    @property
    def free(self) -> int:
        """Slots that take a trial now."""
        return sum(node.free for node in self._open.values())

    @property
    def paid(self) -> float:
        """Node-seconds to be paid so far."""
        return self._paid + sum(self._agenda.now - node.asked for node in self._alive.values())

    @property
    def starting(self) -> float:
        """Node-seconds so far in which a node that is paid was not up yet."""
        waiting = (self._agenda.now - node.asked for node in self._alive.values() if not node.up)
        return self._starting + sum(waiting)

    def want(self, slots: int) -> None:
        """Asks for nodes again that were given back, if those that are there or to come have too few slots free."""
        missing = slots - self.free - self._coming
        for place in sorted(self._vacant)[: max(0, -(-missing // self._pool.slots))]:
            del self._vacant[place]
            self._ask(place)

    def take(self) -> Node:
        """Takes one of the free slots, on the node that has been there for longest."""
        node = next(iter(self._open.values()))
        node.free -= 1
        if not node.free:
            del self._open[node.name]
        return node

    def give(self, node: Node) -> None:
        """Gives a slot back."""
        if not node.gone:
            node.free += 1
            self._offer(node)
            self._rest(node)

    def avoid(self, names: Collection[str]) -> None:
        """Offers no more slots of these nodes."""
        for name in names:
            if name not in self._avoided:
                self._avoided.add(name)
                self._open.pop(name, None)

    def release(self) -> None:
        """Gives every node back, for good."""
        for node in list(self._alive.values()):
            self._end(node)

    def _offer(self, node: Node) -> None:
        if node.up and not node.leaving and node.name not in self._avoided:
            self._open[node.name] = node

    def _rest(self, node: Node) -> None:
        """Gives a node back that runs nothing from now on, if that stays so for long enough."""

        def look() -> None:
            if not node.gone and node.free == self._pool.slots and node.idle == since:
                self._end(node)
                self._vacant[node.place] = None
                self._changed()

        if node.free == self._pool.slots:
            node.idle = since = self._agenda.now
            self._agenda.at(since + self._pool.idle, look)

    def _ask(self, place: int) -> None:
        self._coming += self._pool.slots
        self._generations[place] += 1
        node = Node(f"node-{place}.{self._generations[place]}", place, self._agenda.now)
        self._alive[node.name] = node
        self._agenda.at(self._agenda.now + self._pool.start_up, lambda: self._start(node))

    def _start(self, node: Node) -> None:
        if node.gone:
            return
        node.up, node.free = True, self._pool.slots
        self.up += self._pool.slots
        self._coming -= self._pool.slots
        self._starting += self._agenda.now - node.asked
        self._offer(node)
        self._rest(node)
        self._changed()
        if self._pool.preemptions and not self._pool.trace:
            random = Random(f"{self._seed}/{node.name}")  # noqa: S311  # a simulation
            life = random.expovariate(self._pool.preemptions / HOUR)
            self._warn(node, self._agenda.now + max(0.0, life - self._pool.notice), self._agenda.now + life, 0.0)

    def _trace(self, time: float, down: float) -> None:
        """A row of the trace takes the node that has been up for longest and is not about to go yet."""
        node = next((node for node in self._alive.values() if node.up and not node.leaving), None)
        if node is not None:
            self._warn(node, self._agenda.now, time, down)

    def _warn(self, node: Node, warned: float, gone: float, down: float) -> None:
        def warn() -> None:
            if not node.gone:
                node.leaving = True
                self._open.pop(node.name, None)

        def take() -> None:
            if not node.gone:
                self.preemptions += 1
                self._end(node)
                self._taken(node)
                self._agenda.at(self._agenda.now + down, lambda: self._replace(node))
                self._changed()

        if self._pool.notice:
            self._agenda.at(warned, warn)
        self._agenda.at(gone, take)

    def _replace(self, node: Node) -> None:
        """At once, if trials ran on it to the end; otherwise when trials wait."""
        if node.free < self._pool.slots:
            self._ask(node.place)
        else:
            self._vacant[node.place] = None
            self._changed()

    def _end(self, node: Node) -> None:
        node.gone = True
        self._paid += self._agenda.now - node.asked
        if node.up:
            self.up -= self._pool.slots
        else:
            self._coming -= self._pool.slots
            self._starting += self._agenda.now - node.asked
        del self._alive[node.name]
        self._open.pop(node.name, None)
