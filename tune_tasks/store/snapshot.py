"""The state of a study as the bytes of one object, so that opening a large study does not replay its whole log.

A header line of JSON, the state as JSON with the trials in columns, then the reports as raw columns of float64: time
first, then each metric. A snapshot can be thrown away at any time. Pure. This module must not use pickle, and must
keep every field of `StudyState` and `Trial`: one that is left out is lost at the next load.
"""

from __future__ import annotations

import sys
from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import repeat
from typing import Any, cast

import orjson
from pydantic import TypeAdapter

from tune_tasks.curves import Block, Curves
from tune_tasks.errors import CorruptLog
from tune_tasks.events import FORMAT, Advance, CheckpointRef
from tune_tasks.spec import StudySpec
from tune_tasks.study import StudyState, Trial

FOLD = 4
"""To be raised with every change of `StudyState.apply` that gives another state for the same events.

Snapshots of another fold are not used: what a study looks like must not depend on which version last wrote one.
"""

_ITEM = 8  # bytes of a float64
_MOST = 1 << 27  # cells of a table of reports, so that metrics which few trials have cannot fill the memory
_OWN_FORM = {"spec", "trials", "curves", "queue", "running"}
_PLAIN = [field.name for field in fields(StudyState) if field.name not in _OWN_FORM]
_COLUMNS = [field.name for field in fields(Trial) if field.name != "curves"]
_PLANNED = {"id", "run", "round", "trials", "exhausted"}
_ADVANCES: TypeAdapter[list[Advance | None]] = TypeAdapter(list[Advance | None])
_CHECKPOINTS: TypeAdapter[list[tuple[tuple[int, CheckpointRef], ...]]] = TypeAdapter(
    list[tuple[tuple[int, CheckpointRef], ...]]
)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the log: after segment `number`, whose digest is `chain`; `epoch` is the newest driver's."""

    number: int = 0
    chain: str = ""
    study: str = ""
    epoch: int = 0


def encode(state: StudyState, at: Position) -> bytes:
    """Writes the state as it is after the segment at `at`.

    Raises `TypeError` for a value that JSON does not have, `ValueError` where the table of reports would be absurd.
    """
    cells = state.curves.cells(len(state.trials))
    if cells > _MOST:
        raise ValueError(f"{cells} cells of reports are too many; report fewer metrics, or the same ones in each trial")
    block = state.curves.freeze(len(state.trials))
    payload = orjson.dumps(
        {
            "state": {name: getattr(state, name) for name in _PLAIN},
            "spec": state.spec.model_dump(mode="json"),
            "queue": list(state.queue),
            "running": list(state.running),
            "trials": _columns(state.trials),
            "lengths": list(block.lengths),
        }
    )
    header = {
        "format": FORMAT,
        "fold": FOLD,
        "study": at.study,
        "number": at.number,
        "chain": at.chain,
        "epoch": at.epoch,
        "order": sys.byteorder,
        "length": len(payload),
        "rows": len(block.time),
        "metrics": list(block.metrics),
    }
    return b"".join([orjson.dumps(header), b"\n", payload, block.time, *block.metrics.values()])


def decode(data: bytes) -> tuple[StudyState, Position]:
    """Reads a state and its place in the log back. Raises `CorruptLog` where the bytes are not a snapshot of ours.

    The reports stay where they are in `data`: a trial's curve is a view into it until the trial reports again.
    """
    try:
        header, payload, block = _parts(data)
        return _state(payload, Curves(block)), _position(header)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CorruptLog(f"not a snapshot: {type(error).__name__}: {error}") from None


def _parts(data: bytes) -> tuple[dict[str, Any], dict[str, Any], Block]:
    line = data[: data.index(b"\n")]  # a partition would copy all of it
    header = orjson.loads(line)
    if (header["format"], header["fold"], header["order"]) != (FORMAT, FOLD, sys.byteorder):
        raise ValueError(f"it has format {header['format']}, fold {header['fold']} and is {header['order']}-endian")
    start, rows = len(line) + 1, header["rows"]
    end = start + header["length"]
    if len(data) != end + _ITEM * rows * (1 + len(header["metrics"])):
        raise ValueError(f"{len(data)} bytes are not what its header says")
    payload = orjson.loads(memoryview(data)[start:end])
    time, *metrics = (_numbers(data, end + _ITEM * rows * index, rows) for index in range(1 + len(header["metrics"])))
    block = Block(payload["lengths"], time, dict(zip(header["metrics"], metrics, strict=True)))
    if sum(block.lengths) != rows:
        raise ValueError(f"{rows} rows of reports are not the sum of its trials")
    return header, payload, block


def _numbers(data: bytes, start: int, count: int) -> memoryview:
    """A view of `count` float64 in place; an empty view cannot be cast, so there a fresh one."""
    view: Any = memoryview(data)[start : start + _ITEM * count].cast("d") if count else memoryview(array("d"))
    return cast("memoryview", view)


def _position(header: Mapping[str, Any]) -> Position:
    return Position(header["number"], header["chain"], header["study"], header["epoch"])


def _columns(trials: list[Trial]) -> dict[str, Any]:
    columns: dict[str, Any] = {name: [getattr(trial, name) for trial in trials] for name in _COLUMNS}
    columns["advance"] = _ADVANCES.dump_python(columns["advance"])
    columns["checkpoints"] = _CHECKPOINTS.dump_python(columns["checkpoints"])
    return columns


def _trials(columns: Mapping[str, Any], curves: Curves) -> list[Trial]:
    """Fills the slots of all trials column by column, in a third of the time that calling `Trial` for each takes."""
    count = len(columns["number"])
    trials = list(map(object.__new__, repeat(Trial, count)))
    for name, column in {**columns, "curves": [curves] * count}.items():
        if len(column) != count:
            raise ValueError(f"{len(column)} values of {name} for {count} trials")
        deque(map(vars(Trial)[name].__set__, trials, column), maxlen=0)
    return trials


def _state(payload: Mapping[str, Any], curves: Curves) -> StudyState:
    columns = payload["trials"]
    columns["advance"] = _ADVANCES.validate_python(columns["advance"])
    columns["checkpoints"] = _CHECKPOINTS.validate_python(columns["checkpoints"])
    plain = payload["state"]
    if {*plain} != {*_PLAIN} or {*columns} != {*_COLUMNS}:
        raise ValueError("its fields are not those of this version")
    for result in plain["steps"].values():
        if result.keys() == _PLANNED:  # JSON has no tuples; the fold has them here
            result["trials"] = [tuple(pair) for pair in result["trials"]]
    return StudyState(
        spec=StudySpec(**payload["spec"]),
        trials=_trials(columns, curves),
        curves=curves,
        queue=dict.fromkeys(payload["queue"]),
        running=dict.fromkeys(payload["running"]),
        **plain,
    )
