"""What a user writes of a command: its words, with `{name}` for values of the configuration, and where its reports are.

Pure values. This module must not start a process, and must not know the search space but by its names.
"""

from __future__ import annotations

import json
import re
import shlex
import string
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from tune_tasks.errors import ConfigError, invalid

PREFIX = "TUNE_TASKS_"
VARIABLES = tuple(
    PREFIX + name
    for name in ("BUDGET", "MAX_BUDGET", "FOLDER", "CHECKPOINT", "METRICS", "CONFIG", "STUDY", "TRIAL", "ATTEMPT")
)
"""The environment variables of a command, which are placeholders too. One that has no value is not set."""


def _split(value: Any) -> Any:
    """Splits a text into words as a shell does; no shell runs it."""
    if not isinstance(value, str):
        return value
    try:
        return shlex.split(value)
    except ValueError as error:
        raise ValueError(f"{value!r} cannot be split into words as a shell would: {error}") from None


class Command(BaseModel):
    """A command in place of an objective, in any language; a plain text or list is `run` alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Annotated[tuple[str, ...], BeforeValidator(_split)] = Field(
        min_length=1, description="a text, split as a shell would, or a list; {name} is a value of the configuration"
    )
    pattern: str | None = Field(
        default=None, description="regular expression; each match in a line of stdout is a report of its named groups"
    )
    metrics: str | None = Field(
        default=None, description="JSON-lines file in the run's own folder, each line a report; by default stdout"
    )
    notify: Literal["SIGUSR1"] | None = Field(
        default=None, description="signal that tells the command that its node is about to go away"
    )

    @model_validator(mode="before")
    @classmethod
    def _run_alone(cls, data: Any) -> Any:
        return {"run": data} if isinstance(data, str | list | tuple) else data

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return pattern

    @field_validator("metrics")
    @classmethod
    def _inside(cls, metrics: str | None) -> str | None:
        if metrics is not None and (PurePosixPath(metrics).is_absolute() or ".." in PurePosixPath(metrics).parts):
            raise ValueError(f"{metrics!r} is not below the run's own folder; write a relative path, as metrics.jsonl")
        return metrics

    @model_validator(mode="after")
    def _one_source(self) -> Command:
        if self.pattern is not None and self.metrics is not None:
            raise ValueError("pattern and metrics are both given; reports are found by one of them")
        return self

    def check(self, names: Collection[str], metric: str) -> None:
        """Raises `ConfigError` for a placeholder that is no parameter, or a pattern without the study's metric."""
        for word in self.run:
            for name in _names(word):
                if name not in names and name not in VARIABLES:
                    known = [*names, *VARIABLES]
                    raise invalid(
                        "command.run", name, f"no parameter has this name; there are {', '.join(known)}", known
                    )
        groups = re.compile(self.pattern).groupindex if self.pattern is not None else {metric: 0}
        if metric not in groups:
            allowed = f"it must have the study's metric as a named group, (?P<{metric}>...)"
            raise invalid("command.pattern", self.pattern, allowed)

    def words(self, values: Mapping[str, str]) -> list[str]:
        """The words with every placeholder filled in; empty for a parameter that this configuration does not have."""
        return [
            "".join(text + values.get(name or "", "") for text, name, *_ in string.Formatter().parse(word))
            for word in self.run
        ]


def texts(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The values of a configuration as text, by dotted name: texts as they are, all else as JSON, so 1e-05 and true."""
    found: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= texts(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return found


def _names(word: str) -> Iterator[str]:
    """The placeholders of a word."""
    try:
        for _, name, shape, conversion in string.Formatter().parse(word):
            if shape or conversion:
                raise ConfigError(
                    f"command.run: {word!r} is not allowed; write {{name}} alone, and {{{{ and }}}} for braces"
                )
            if name is not None:
                yield name
    except ValueError as error:
        raise ConfigError(f"command.run: {word!r} is not allowed ({error}); write {{{{ and }}}} for braces") from None
