"""Writes a table as a Parquet or a CSV file, batch by batch.

This module must not import pyarrow before a Parquet file is asked for: it is an extra.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from tune_tasks.errors import ConfigError, invalid
from tune_tasks.operate.tables import Column, Kind, Table

FORMATS = ("parquet", "csv")


def check_format(form: str) -> None:
    """Raises `ConfigError` for an unknown format, and for Parquet where its package is not installed."""
    if form not in FORMATS:
        raise invalid("format", form, f"allowed are {', '.join(FORMATS)}", FORMATS)
    if form == "parquet":
        _pyarrow()


def write_table(path: Path, table: Table, form: str) -> int:
    """Writes a table to a file and returns the number of its rows. Raises `OSError` where the disk does."""
    check_format(form)
    return _write_parquet(path, table) if form == "parquet" else _write_csv(path, table)


def _write_csv(path: Path, table: Table) -> int:
    """By RFC 4180; what is absent is an empty field, booleans are `true` and `false`, text may hold line breaks."""
    rows = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table.columns)
        for batch in table.batches:
            columns = [_plain(batch[name], kind) for name, kind in table.columns.items()]
            writer.writerows(zip(*columns, strict=True))
            rows += _length(batch.values())
    return rows


def _plain(values: Column, kind: Kind) -> Iterable[Any]:
    if isinstance(values, array | memoryview):
        return ("" if value != value else value for value in values)  # noqa: PLR0124  # NaN is not itself
    if kind == "bool":
        return ("" if value is None else str(value).lower() for value in values)
    return values


def _write_parquet(path: Path, table: Table) -> int:
    pa, parquet, _ = _pyarrow()
    types = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "text": pa.string()}
    schema = pa.schema([(name, types[kind]) for name, kind in table.columns.items()])
    rows = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for batch in table.batches:
            columns = [_array(pa, batch[name], types[kind]) for name, kind in table.columns.items()]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            rows += _length(batch.values())
    return rows


def _array(pa: Any, values: Column, kind: Any) -> Any:
    """A column of Arrow's; numbers are taken in place, where NaN is null."""
    if not isinstance(values, array | memoryview):
        return pa.array(values, type=kind)
    column = pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
    if not pa.types.is_floating(kind):
        return column
    compute = _pyarrow()[2]
    return compute.if_else(compute.is_nan(column), pa.scalar(None, kind), column)


def _length(columns: Iterable[Column]) -> int:
    return len(next(iter(columns), ()))


def _pyarrow() -> tuple[Any, Any, Any]:
    """The modules of pyarrow, which ships no types."""
    try:
        pa, parquet, compute = (import_module(name) for name in ("pyarrow", "pyarrow.parquet", "pyarrow.compute"))
    except ImportError:
        raise ConfigError(
            "format: 'parquet' needs a package that is not installed; install it with pip install "
            "'tune-tasks[parquet]', or write csv"
        ) from None
    return pa, parquet, compute
