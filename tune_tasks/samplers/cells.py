"""The cells of a search space: every combination of its discrete parameters, counted and indexed, never listed.

A parameter that does not exist for a cell does not multiply it. Pure arithmetic; this module must not draw at random
or know a history. A continuous parameter belongs to no cell: whoever uses a cell chooses its value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, TypeAlias

from tune_tasks.space import Categorical, Constant, Float, Int, Space

Parameter: TypeAlias = Float | Int | Categorical | Constant

_ABSENT = object()
_OTHER = object()
"""Stand for a parent that does not exist, and for one whose value no condition names: both fulfil no condition."""


def nth(parameter: Parameter, index: int) -> Any:
    """The value at `index` of a discrete parameter, in the order in which the spec declares them."""
    match parameter:
        case Categorical():
            return parameter.choices[index]
        case Constant():
            return parameter.value
        case Int():
            return parameter.low + parameter.step * index
        case Float():
            return parameter.from_unit((index + 0.5) / parameter.size())


def position(parameter: Parameter, value: Any) -> int:
    """The index of a value that a discrete parameter contains: `nth` backwards."""
    match parameter:
        case Categorical():
            same = (type(choice) is type(value) and choice == value for choice in parameter.choices)
            return list(same).index(True)
        case Constant():
            return 0
        case Int():
            return int(value - parameter.low) // parameter.step
        case Float():
            return round(float(value - parameter.low) / (parameter.step or 1.0))


class Cells(Protocol):
    """Combinations of discrete values, `total` in all."""

    @property
    def total(self) -> int:
        """How many cells there are."""
        ...

    def at(self, index: int) -> dict[str, Any]:
        """The values of cell `index`, 0 <= index < total, by name; the last parameter changes fastest."""
        ...


def cells(space: Space) -> Cells:
    """The cells of a space; one empty cell where no parameter is discrete."""
    return _product(list(space), space, {})


@dataclass(frozen=True, slots=True)
class _Values:
    """A parameter on which no other depends."""

    name: str
    parameter: Parameter

    @property
    def total(self) -> int:
        return self.parameter.size()

    def at(self, index: int) -> dict[str, Any]:
        return {self.name: nth(self.parameter, index)}


@dataclass(frozen=True, slots=True)
class _Product:
    """Parts that do not depend on one another."""

    parts: tuple[Cells, ...]

    @property
    def total(self) -> int:
        return prod(part.total for part in self.parts)

    def at(self, index: int) -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        for part in reversed(self.parts):
            index, inner = divmod(index, part.total)
            found.append(part.at(inner))
        return {name: value for chosen in reversed(found) for name, value in chosen.items()}


@dataclass(frozen=True, slots=True)
class _Branches:
    """A parent, and for each of its values what exists then.

    Only the values that a condition names are looked at one by one; `rest` stands for each of the others, so that a
    wide range stays cheap.
    """

    name: str
    parameter: Parameter
    named: tuple[int, ...]
    below: tuple[Cells, ...]
    rest: Cells

    @property
    def total(self) -> int:
        return sum(part.total for part in self.below) + (self.parameter.size() - len(self.named)) * self.rest.total

    def at(self, index: int) -> dict[str, Any]:
        start = 0
        for value, part in zip(self.named, self.below, strict=True):
            between = (value - start) * self.rest.total
            if index < between:
                break
            index -= between
            if index < part.total:
                return {self.name: nth(self.parameter, value), **part.at(index)}
            index, start = index - part.total, value + 1
        others, inner = divmod(index, self.rest.total)
        return {self.name: nth(self.parameter, start + others), **self.rest.at(inner)}


def _product(names: Sequence[str], space: Space, known: Mapping[str, Any]) -> Cells:
    """The cells of some parameters, parents first, where the values of those in `known` are settled."""
    settled, open_names = dict(known), []
    for name in names:
        parameter = space[name]
        if any(parent in settled and settled[parent] not in values for parent, values in parameter.when.items()):
            settled[name] = _ABSENT
        elif parameter.size() == 0:
            settled[name] = _OTHER
        else:
            open_names.append(name)
    return _Product(tuple(_component(group, space, settled) for group in _connected(open_names, space)))


def _component(names: Sequence[str], space: Space, known: Mapping[str, Any]) -> Cells:
    name, *others = names
    parameter = space[name]
    if not others:
        return _Values(name, parameter)
    conditions = [space[other].when[name] for other in others if name in space[other].when]
    named = _named(parameter, [value for values in conditions for value in values])
    below = tuple(_product(others, space, {**known, name: nth(parameter, index)}) for index in named)
    return _Branches(name, parameter, named, below, _product(others, space, {**known, name: _OTHER}))


def _named(parameter: Parameter, values: Sequence[Any]) -> tuple[int, ...]:
    """The indexes of the values that fulfil a condition."""
    if isinstance(parameter, Categorical | Constant):
        candidates = set(range(parameter.size()))
    else:
        candidates = {position(parameter, value) for value in values}
    return tuple(index for index in sorted(candidates) if nth(parameter, index) in values)


def _connected(names: Sequence[str], space: Space) -> list[list[str]]:
    """Splits parameters into groups that share no condition, each in the order given."""
    groups: list[list[str]] = []
    for name in names:
        mine = {name, *space[name].when}
        touched = [group for group in groups if not mine.isdisjoint(group)]
        groups = [group for group in groups if mine.isdisjoint(group)]
        groups.append([*(member for group in touched for member in group), name])
    order = {name: index for index, name in enumerate(names)}
    return sorted((sorted(group, key=order.__getitem__) for group in groups), key=lambda group: order[group[0]])
