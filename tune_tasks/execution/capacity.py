"""How many trials the nodes of a cluster hold at once: arithmetic on amounts of resources.

This module must not ask Ray for anything: what the nodes have, and what a trial needs, is given to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

Amounts: TypeAlias = Mapping[str, float]
"""How much there is, or is needed, of each resource by Ray's name; of memory in bytes."""

_MOST = 10_000
"""Gangs that are counted one by one."""


def count(needs: Sequence[Amounts], strategy: str, nodes: Sequence[Amounts]) -> int:
    """How many trials fit; the first of `needs` is a trial's own process, the others are the bundles of its gang.

    Gangs are put on the nodes one after another, so that Ray may find room for a few more.
    """
    if strategy == "STRICT_PACK":
        needs = [_sum(needs)]
    if len(needs) == 1:
        return sum(times(needs[0], node) for node in nodes)
    left = [dict(node) for node in nodes]
    placed = 0
    while placed < _MOST and _place(needs, left, apart=strategy == "STRICT_SPREAD"):
        placed += 1
    return placed


def times(need: Amounts, node: Amounts) -> int:
    """How often something that needs anything at all fits on one node."""
    return min(_times(name, amount, node.get(name, 0.0)) for name, amount in need.items() if amount > 0)


def offer(needs: Sequence[Amounts], nodes: Sequence[Amounts]) -> str:
    """What a cluster has of what is needed, for a person."""
    if not nodes:
        return "the cluster has no nodes"
    names = dict.fromkeys(name for need in needs for name, amount in need.items() if amount > 0)
    most = {name: max(node.get(name, 0.0) for node in nodes) for name in names}
    together = {name: sum(node.get(name, 0.0) for node in nodes) for name in names}
    gang = f", and its {len(nodes)} nodes together have {shown(together)}" if len(needs) > 1 else ""
    return f"the most that a node has is {shown(most)}{gang}{_accelerators(names, nodes)}"


def shown(amounts: Amounts) -> str:
    """Amounts for a person."""
    return ", ".join(f"{name} {_amount(name, amount)}" for name, amount in amounts.items())


def _amount(name: str, amount: float) -> str:
    if name.startswith("accelerator_type:"):
        return "yes" if amount else "no"
    return f"{amount / 2**30:.3g} GiB" if name == "memory" else f"{amount:g}"


def _accelerators(names: Iterable[str], nodes: Sequence[Amounts]) -> str:
    """Which accelerator types there are, where one is asked for: it may just be spelled in another way."""
    kind = "accelerator_type:"
    if not any(name.startswith(kind) for name in names):
        return ""
    has = sorted({name.removeprefix(kind) for node in nodes for name in node if name.startswith(kind)})
    return f"; accelerator types that it has: {', '.join(has) or 'none'}"


def _sum(needs: Sequence[Amounts]) -> Amounts:
    names = dict.fromkeys(name for need in needs for name in need)
    return {name: sum(need.get(name, 0.0) for need in needs) for name in names}


def _times(name: str, amount: float, total: float) -> int:
    """How often an amount fits; a fraction of a GPU must come from a single one."""
    if name == "GPU" and amount < 1:
        return int(total) * int(1 / amount + 1e-9)
    return int(total / amount + 1e-9)


def _place(needs: Sequence[Amounts], left: list[dict[str, float]], *, apart: bool) -> bool:
    """Takes one gang's resources from the nodes; false where there is no room for it."""
    used: set[int] = set()
    for need in needs:
        free = (n for n, node in enumerate(left) if times(need, node) and not (apart and n in used))
        found = next(free, None)
        if found is None:
            return False
        used.add(found)
        for name, amount in need.items():
            left[found][name] = left[found].get(name, 0.0) - amount
    return True
