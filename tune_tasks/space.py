"""The search space: parameters, the conditions under which they exist, and the map from the unit interval to values.

Pure values. This module must not draw random numbers itself, do I/O, or know any sampler: a sampler hands in its
choice for each parameter and gets a complete configuration back (`Space.choose`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator, model_validator

from tune_tasks.errors import invalid

Scalar: TypeAlias = bool | int | float | str | None
Params: TypeAlias = dict[str, Any]

_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


class _Parameter(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    when: dict[str, tuple[Scalar, ...]] = Field(
        default_factory=dict,
        description="The parameter exists only where each named parameter has one of these values.",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_value_or_many(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("when"), Mapping):
            many = {k: v if isinstance(v, list | tuple) else (v,) for k, v in data["when"].items()}
            return {**data, "when": many}
        return data


class Float(_Parameter):
    """A real number in [low, high]; on a log scale, or on the grid low, low + step, ... where asked."""

    type: Literal["float"] = "float"
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    log: bool = False
    step: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check(self) -> Float:
        _check_range(self.low, self.high, log=self.log, step=self.step)
        return self

    def from_unit(self, unit: float) -> float:
        """Maps `unit` in [0, 1] to a value; equal widths get equal probability on the declared scale."""
        if self.step is not None:
            value = float(f"{self.low + self.step * _bin(unit, self.size()):.15g}")  # 0.3, not 0.30000000000000004
            return min(max(value, self.low), self.high)
        if self.log:
            value = math.exp(math.log(self.low) + unit * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + unit * (self.high - self.low)
        return min(max(value, self.low), self.high)

    def size(self) -> int:
        """How many values there are; 0 means a continuum."""
        return 0 if self.step is None else math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def contains(self, value: Any) -> bool:
        """Tells whether `value` is one that this parameter can take."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or abs((value - self.low) / self.step - round((value - self.low) / self.step)) < 1e-6


class Int(_Parameter):
    """A whole number in [low, high], both included; on a log scale or in steps where asked."""

    type: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False
    step: int = Field(default=1, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Int:
        _check_range(self.low, self.high, log=self.log, step=self.step if self.step != 1 else None)
        return self

    def from_unit(self, unit: float) -> int:
        """Maps `unit` in [0, 1] to a value; on a log scale the ends get a full share too."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return min(max(round(math.exp(low + unit * (high - low))), self.low), self.high)
        return self.low + self.step * _bin(unit, self.size())

    def size(self) -> int:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1

    def contains(self, value: Any) -> bool:
        """Tells whether `value` is one that this parameter can take."""
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return self.low <= value <= self.high and (value - self.low) % self.step == 0


class Categorical(_Parameter):
    """One of a few choices, without order."""

    type: Literal["categorical"] = "categorical"
    choices: tuple[Scalar, ...]

    @model_validator(mode="after")
    def _check(self) -> Categorical:
        if not self.choices:
            raise ValueError("choices is empty; give at least one")
        _check_choices(self.choices)
        return self

    def from_unit(self, unit: float) -> Scalar:
        """Maps `unit` in [0, 1] to a choice, each with the same probability."""
        return self.choices[_bin(unit, len(self.choices))]

    def size(self) -> int:
        """How many choices there are."""
        return len(self.choices)

    def contains(self, value: Any) -> bool:
        """Tells whether `value` is one of the choices; True is not 1 here."""
        return any(type(value) is type(choice) and value == choice for choice in self.choices)


class Grid(Categorical):
    """Choices of which the grid sampler must try every one; other samplers treat them as categorical."""

    type: Literal["grid"] = "grid"  # type: ignore[assignment]  # narrows the discriminator of its parent


class Constant(_Parameter):
    """A fixed value, passed to the objective with the rest."""

    type: Literal["constant"] = "constant"
    value: Any

    @field_validator("value")
    @classmethod
    def _is_json(cls, value: Any) -> Any:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(f"{value!r} cannot be written as JSON; a constant must be") from None
        return value

    def from_unit(self, unit: float) -> Any:  # noqa: ARG002  # every parameter maps the unit interval
        """Returns the value, whatever `unit` is."""
        return self.value

    def size(self) -> int:
        """One."""
        return 1

    def contains(self, value: Any) -> bool:
        """Tells whether `value` is the constant."""
        return bool(value == self.value)


Parameter: TypeAlias = Annotated[Float | Int | Categorical | Grid | Constant, Field(discriminator="type")]


class Space(RootModel[dict[str, Parameter]]):
    """Named parameters, parents before the parameters that depend on them.

    Written as a mapping; a mapping without `type` is a group, whose members get dotted names, and a plain value is a
    constant. `config` turns dotted names back into nested dictionaries for the objective.
    """

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, data: Any) -> Any:
        if isinstance(data, Space):
            return data.root
        if not isinstance(data, Mapping):
            raise ValueError("must be a mapping from names to parameters")
        flat: dict[str, Any] = {}
        for name, value in _flat(data, ""):
            if name in flat:
                raise ValueError(f"{name!r} is declared twice; every parameter must have a name of its own")
            flat[name] = value
        return flat

    @model_validator(mode="after")
    def _ordered(self) -> Space:
        if all(isinstance(parameter, Constant) for parameter in self.root.values()):
            raise ValueError("has no parameter to search; give at least one of type float, int, categorical or grid")
        for name in self.root:
            inner = next((other for other in self.root if other.startswith(f"{name}.")), None)
            if inner is not None:
                raise ValueError(f"{name!r} is a parameter and the group of {inner!r}; it must be one of the two")
        ordered = _parents_first(self.root)
        self.root.clear()
        self.root.update(ordered)
        return self

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]  # iterates over names, as a mapping does
        return iter(self.root)

    def __getitem__(self, name: str) -> Float | Int | Categorical | Grid | Constant:
        return self.root[name]

    def __len__(self) -> int:
        return len(self.root)

    def choose(self, pick: Callable[[str, Any], Any]) -> Params:
        """Builds one configuration by asking `pick(name, parameter)` for each parameter that exists, parents first."""
        params: Params = {}
        for name, parameter in self.root.items():
            if _holds(parameter.when, params):
                params[name] = parameter.value if isinstance(parameter, Constant) else pick(name, parameter)
        return params

    def exists(self, name: str, params: Mapping[str, Any]) -> bool:
        """Tells whether a parameter has a value where the others have these."""
        return _holds(self.root[name].when, params)

    def problems(self, params: Mapping[str, Any]) -> list[str]:
        """Says what is wrong with `params` as a point of this space; empty when it lies inside."""
        found = [f"{name}: unknown parameter" for name in params if name not in self.root]
        for name, parameter in self.root.items():
            exists = _holds(parameter.when, params)
            if exists and name not in params:
                found.append(f"{name}: missing")
            elif not exists and name in params:
                found.append(f"{name}: does not exist for this configuration")
            elif exists and not parameter.contains(params[name]):
                found.append(f"{name}: {params[name]!r} is outside the space")
        return found


def config(params: Mapping[str, Any]) -> dict[str, Any]:
    """Turns dotted names into nested dictionaries: what the objective receives."""
    nested: dict[str, Any] = {}
    for name, value in params.items():
        *groups, leaf = name.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[leaf] = value
    return nested


def _flat(data: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        name = f"{prefix}{key}"
        if not all(_PART.fullmatch(part) for part in name.split(".")):
            raise ValueError(f"{name!r} is not a parameter name; use letters, digits, '_' and '-', dots between groups")
        if isinstance(value, BaseModel) or (isinstance(value, Mapping) and isinstance(value.get("type"), str)):
            yield name, value
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, {"type": "constant", "value": value}


def _check_range(low: float, high: float, *, log: bool, step: float | None) -> None:
    if low >= high:
        raise ValueError(
            f"the range [{low}, {high}] is {'empty' if low == high else 'inverted'}; low must be below high"
        )
    if not math.isfinite(float(high) - float(low)):
        raise ValueError(f"the range [{low}, {high}] is wider than a float can tell; narrow it, or use a log scale")
    if log and low <= 0:
        raise ValueError(f"a log range must lie above zero, and low is {low}")
    if log and step is not None:
        raise ValueError(f"log and step={step} exclude each other; leave one out")
    if step is not None and step > high - low:
        raise ValueError(f"step {step} is wider than the range [{low}, {high}]")


def _check_choices(choices: tuple[Scalar, ...]) -> None:
    seen: list[tuple[type, Scalar]] = []
    for choice in choices:
        if isinstance(choice, float) and not math.isfinite(choice):
            raise ValueError(f"choice {choice!r} is not a finite number")
        if (type(choice), choice) in seen:
            raise ValueError(f"choice {choice!r} is there twice; every choice must be different")
        seen.append((type(choice), choice))


def _holds(when: Mapping[str, tuple[Scalar, ...]], params: Mapping[str, Any]) -> bool:
    return all(name in params and any(_same(params[name], value) for value in values) for name, values in when.items())


def _same(one: Any, other: Any) -> bool:
    """Tells whether two values are equal as a person writes them: 1 is 1.0, and True is neither."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _parents_first(parameters: Mapping[str, Any]) -> dict[str, Any]:
    ordered: dict[str, Any] = {}
    waiting = dict(parameters)
    for name, parameter in parameters.items():
        _check_when(name, parameter, parameters)
    while waiting:
        ready = [name for name, parameter in waiting.items() if all(parent in ordered for parent in parameter.when)]
        if not ready:
            raise ValueError(f"{', '.join(sorted(waiting))}: conditions form a circle; one must not depend on another")
        for name in ready:
            ordered[name] = waiting.pop(name)
    return ordered


def _check_when(name: str, parameter: Any, parameters: Mapping[str, Any]) -> None:
    for parent, values in parameter.when.items():
        if parent not in parameters:
            allowed = f"there is no such parameter; there are {', '.join(parameters)}"
            raise ValueError(str(invalid(f"{name}.when", parent, allowed, parameters)))
        for value in values:
            if not parameters[parent].contains(value):
                raise ValueError(f"{name}.when.{parent}: {value!r} is not a value that {parent!r} can take")


def _bin(unit: float, count: int) -> int:
    return min(int(unit * count), count - 1)
