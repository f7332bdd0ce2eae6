"""Configurations that a person, or an earlier study, hands in: brought into the form of a space, and checked.

Pure values. This module must not choose a value that was not given, but for constants, which have only one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tune_tasks.errors import ConfigError, invalid
from tune_tasks.space import Categorical, Constant, Float, Int, Params, Space


def point(space: Space, params: Mapping[str, Any]) -> Params:
    """The configuration as the space has it: dotted names in its order, its constants filled in, 1 as 1.0 for a float.

    It need not lie in the space: see `check_start`.
    """
    flat = dict(_flat(space, params, ""))
    for name in space:
        parameter = space[name]
        if isinstance(parameter, Constant) and space.exists(name, flat):
            flat.setdefault(name, parameter.value)
        elif isinstance(parameter, Float) and type(flat.get(name)) is int:
            flat[name] = float(flat[name])
    return {name: flat[name] for name in (*space, *flat) if name in flat}


def same(space: Space, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tells whether two configurations are one point of the space; True is not 1."""
    return repr(sorted(point(space, one).items())) == repr(sorted(point(space, other).items()))


def check_start(space: Space, starts: Iterable[Mapping[str, Any]]) -> None:
    """Refuses starting configurations that are no points of the space, or are there twice: one line for each mistake.

    Raises `ConfigError`.
    """
    given = list(starts)
    lines = [line for number, params in enumerate(given) for line in _mistakes(space, params, f"start.{number}")]
    for number, params in enumerate(given):
        twin = next((other for other in range(number) if same(space, given[other], params)), None)
        if twin is not None:
            lines.append(f"start.{number}: is the same configuration as start.{twin}; each must be different")
    if lines:
        raise ConfigError("\n".join(lines))


def allowed(parameter: Any) -> str:
    """Says, for a person, which values a parameter takes."""
    match parameter:
        case Float() | Int():
            kind = "a number" if isinstance(parameter, Float) else "a whole number"
            steps = f", in steps of {parameter.step:g}" if parameter.step not in {None, 1} else ""
            return f"it must be {kind} from {parameter.low:g} to {parameter.high:g}{steps}"
        case Categorical():
            return f"allowed are {', '.join(map(repr, parameter.choices))}"
        case _:
            return f"the space has the constant {parameter.value!r}"


def _mistakes(space: Space, params: Mapping[str, Any], path: str) -> Iterator[str]:
    given = point(space, params)
    for name, value in given.items():
        where = f"{path}.params.{name}"
        if name not in space.root:
            there = f"there is no such parameter; there are {', '.join(space)}"
            yield str(invalid(where, name, there, space))
        elif not space.exists(name, given):
            conditions = [f"{parent} is {' or '.join(map(repr, v))}" for parent, v in space[name].when.items()]
            yield str(invalid(where, value, f"the parameter exists only where {' and '.join(conditions)}"))
        elif not space[name].contains(value):
            yield str(invalid(where, value, allowed(space[name])))
    for name in space:
        if name not in given and space.exists(name, given):
            yield f"{path}.params.{name}: missing; {allowed(space[name])}"


def _flat(space: Space, params: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in space.root:
            yield from _flat(space, value, f"{name}.")
        else:
            yield name, value
