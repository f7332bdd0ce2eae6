"""A study as tables for analysts: trials, reports and events, in columns of one type each.

Pure. This module must not know a file format: `formats` writes what is described here.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal, TypeAlias

import orjson

from tune_tasks.events import Event, Reports, encode
from tune_tasks.store import Segment
from tune_tasks.study import StudyState

Kind: TypeAlias = Literal["int", "float", "bool", "text"]
Column: TypeAlias = "Sequence[Any] | array[Any] | memoryview"
"""The values of a column. In an array or a view NaN stands for what is absent, elsewhere None."""

_BATCH = 10_000
_INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True, slots=True)
class Table:
    """A table by its name, the type of each column, and its rows: batches of columns, each batch read once."""

    name: str
    columns: Mapping[str, Kind]
    batches: Iterable[Mapping[str, Column]]


class Attempts:
    """Finds out which attempt each report is of, which the state of a study forgets."""

    def __init__(self) -> None:
        self._by_trial: dict[int, array[int]] = {}

    def note(self, event: Event, state: StudyState) -> None:
        """Takes an event in before the state does, by the same rule: what an older attempt still sends is dropped."""
        if not isinstance(event, Reports):
            return
        for number, attempt, step in zip(event.trial, event.attempt, event.step, strict=True):
            trial = state.trials[number]
            if trial.state == "running" and attempt == trial.attempts:
                known = self._by_trial.setdefault(number, array("q"))
                del known[step - 1 :]
                known.append(attempt)

    def column(self, lengths: Sequence[int]) -> array[int]:
        """The attempts of all reports, trial by trial, as many for each as its length says."""
        joined = array("q")
        for number, length in enumerate(lengths):
            joined.extend(self._by_trial.get(number, array("q"))[:length])
        return joined


def trials_table(state: StudyState) -> Table:
    """One row a trial: what became of it, why, and its parameters."""
    trials = state.trials
    newest = [trial.checkpoint for trial in trials]
    columns: dict[str, tuple[Kind, Column]] = {
        "trial": ("int", [trial.number for trial in trials]),
        "state": ("text", [trial.state for trial in trials]),
        "value": ("float", [trial.value for trial in trials]),
        "best_step": ("int", [trial.best_step for trial in trials]),
        "budget": ("int", [trial.budget for trial in trials]),
        "target": ("int", [trial.target for trial in trials]),
        "attempts": ("int", [trial.attempts for trial in trials]),
        "failures": ("int", [trial.failures for trial in trials]),
        "losses": ("int", [trial.losses for trial in trials]),
        "batch": ("text", [trial.batch for trial in trials]),
        "reason": ("text", [trial.reason for trial in trials]),
        "why": ("text", [trial.why for trial in trials]),
        "error": ("text", [trial.error for trial in trials]),
        "checkpoint_step": ("int", [item[0] if item else None for item in newest]),
        "checkpoint": ("text", [item[1].key if item else None for item in newest]),
    }
    for name in dict.fromkeys([*state.spec.space.root, *(name for trial in trials for name in trial.params)]):
        columns[f"params.{name}"] = _typed([trial.params.get(name) for trial in trials])
    return _table("trials", columns)


def reports_table(state: StudyState, attempts: Attempts | None = None) -> Table:
    """One row a report: trial, attempt where `attempts` are known, step, time in seconds since the epoch, metrics."""
    block = state.curves.freeze(len(state.trials))
    trial, step = array("q"), array("q")
    for number, length in enumerate(block.lengths):
        trial.extend(repeat(number, length))
        step.extend(range(1, length + 1))
    columns: dict[str, tuple[Kind, Column]] = {
        "trial": ("int", trial),
        **({} if attempts is None else {"attempt": ("int", attempts.column(block.lengths))}),
        "step": ("int", step),
        "time": ("float", block.time),
    }
    metrics: dict[str, tuple[Kind, Column]] = {
        f"metrics.{name}": ("float", column) for name, column in block.metrics.items()
    }
    return _table("reports", columns | metrics)


def events_table(segments: Iterable[Segment]) -> Table:
    """One row an event: its segment and its number in it, who wrote it and when, its type, and the event as JSON."""
    columns: dict[str, Kind] = {
        "segment": "int",
        "index": "int",
        "time": "float",
        "role": "text",
        "epoch": "int",
        "writer": "text",
        "type": "text",
        "event": "text",
    }
    return Table("events", columns, _event_batches(columns, segments))


def _event_batches(columns: Mapping[str, Kind], segments: Iterable[Segment]) -> Iterator[Mapping[str, Column]]:
    rows: list[tuple[Any, ...]] = []
    for segment in segments:
        about = (segment.time, segment.role, segment.epoch, segment.writer)
        rows += [
            (segment.number, index, *about, event.type, encode(event).decode())
            for index, event in enumerate(segment.events)
        ]
        if len(rows) >= _BATCH:
            yield dict(zip(columns, zip(*rows, strict=True), strict=True))
            rows = []
    if rows:
        yield dict(zip(columns, zip(*rows, strict=True), strict=True))


def _table(name: str, columns: Mapping[str, tuple[Kind, Column]]) -> Table:
    return Table(
        name, {key: kind for key, (kind, _) in columns.items()}, [{key: values for key, (_, values) in columns.items()}]
    )


def _typed(values: list[Any]) -> tuple[Kind, Column]:
    """The values of a parameter in the narrowest type that holds all of them; what is mixed becomes text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return "bool", values
    fits = all(value in _INT64 for value in values if type(value) is int)
    if kinds == {int} and fits:
        return "int", values
    if kinds and kinds <= {int, float} and fits:
        return "float", [None if value is None else float(value) for value in values]
    return "text", [_text(value) for value in values]


def _text(value: Any) -> str | None:
    """Text as it is, everything else as JSON; integers of any size too."""
    if value is None or isinstance(value, str):
        return value
    return str(value) if type(value) is int else orjson.dumps(value).decode()
