"""An objective that runs a command: a script in any framework or language, unchanged.

It tells the command about its trial by environment variables, reads its reports from what it prints or writes, and
ends it, with all that it started, when the trial shall end. This module must not start a shell.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tune_tasks.command import PREFIX, Command, texts
from tune_tasks.errors import ConfigError
from tune_tasks.execution.process import Running, Stream
from tune_tasks.session import Context, MetricError, get_checkpoint, get_context, report

_POLL = 0.1
"""Seconds between two looks at the file of metrics, and at the notice that the node goes away."""
_LONGEST_LINE = 1 << 20
"""Bytes. A longer line is output, not a report: a binary without line ends must not fill the memory."""
_LAST_BYTES, _LAST_LINES = 1 << 14, 20
"""How much of its stderr the error of a command shows."""

Row = dict[str, Any]


class CommandError(Exception):
    """The command could not be started, or ended with an error. The text says all that there is to know."""


@dataclass(frozen=True, slots=True)
class CommandObjective:
    """Runs a command for each trial, in `folder`, or where that is not there, in the folder of the worker."""

    command: Command
    metric: str
    folder: str | None

    def __call__(self, config: dict[str, Any]) -> None:
        """Runs it to its end. Raises `CommandError`, and `MetricError` where it ended well and reported nothing."""
        context, checkpoint = get_context(), get_checkpoint()
        variables = _variables(context, checkpoint, self.command.metrics)
        words = self.command.words({**texts(config), **variables})
        reports = _Reports(self.command, self.metric, context.folder)
        outputs = {"stdout": _Output("stdout"), "stderr": _Output("stderr")}
        with self._start(words, variables) as running:
            notify: str | None = self.command.notify
            while running.code is None:
                for stream, data in running.read(_POLL):
                    _take(stream, data, outputs, reports)
                reports.look()
                if notify and getattr(context, "preempted", False):
                    running.notify(signal.Signals[notify])
                    notify = None
        if running.code:
            raise CommandError(_ended(running.code, outputs["stderr"].last))
        reports.finish()
        if not reports.any and checkpoint is None:  # with one, it may have had nothing left to do
            reports.refuse()

    def _start(self, words: list[str], variables: dict[str, str]) -> Running:
        folder = Path(self.folder) if self.folder and Path(self.folder).is_dir() else Path.cwd()
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        environment |= {"PYTHONUNBUFFERED": "1", **variables, "PATH": path}
        try:
            return Running(words, folder, environment)
        except FileNotFoundError:
            raise CommandError(
                f"command: {words[0]!r} cannot be found; it is neither a program on the PATH of the worker "
                f"({path}) nor a path from {folder} on"
            ) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CommandError(f"command: {words[0]!r} in {folder} cannot be run: {reason}") from None


def _take(stream: Stream, data: bytes, outputs: dict[str, _Output], reports: _Reports) -> None:
    """Shows output before its reports are made, which may end the trial."""
    outputs[stream].write(data)
    if stream == "stdout":
        reports.printed(data)


def _variables(context: Context, checkpoint: Path | None, metrics: str | None) -> dict[str, str]:
    """What the command is told; a variable that has no value is not set."""
    values = {
        "CONFIG": json.dumps(context.config),
        "STUDY": context.study,
        "TRIAL": context.trial,
        "ATTEMPT": context.attempt,
        "BUDGET": context.budget,
        "FOLDER": context.folder,
        "CHECKPOINT": checkpoint,
        "METRICS": context.folder / metrics if metrics else None,
        "DATA": context.data,
        "FINAL": 1 if context.final else None,
    }
    with suppress(ConfigError):  # a study without one
        values["MAX_BUDGET"] = context.max_budget
    return {PREFIX + name: str(value) for name, value in values.items() if value is not None}


class _Reports:
    """Finds reports in what a command prints or writes, and makes them."""

    def __init__(self, command: Command, metric: str, folder: Path) -> None:
        self._command, self._metric, self._folder = command, metric, folder
        self.any = False
        self._near: Row | None = None
        self._file = folder / command.metrics if command.metrics else None
        self._name, self._offset, self._number = command.metrics, 0, 0
        self._lines = _Lines()
        self._rows: Callable[[bytes], Iterator[Row]] = self._printed_row
        if command.pattern is not None:
            pattern = re.compile(command.pattern)
            self._rows = lambda line: (_matched(match) for match in pattern.finditer(line.decode(errors="replace")))
        elif self._file is not None:
            self._rows = self._written_row

    def printed(self, data: bytes) -> None:
        """Takes a piece of stdout."""
        if self._file is None:
            self._feed(data)

    def look(self) -> None:
        """Reads what the file of metrics has gained."""
        if self._file is None:
            return
        with suppress(FileNotFoundError), self._file.open("rb") as file:
            file.seek(self._offset)
            while data := file.read(_LONGEST_LINE):
                self._offset += len(data)
                self._feed(data)

    def finish(self) -> None:
        """Takes a last line that has no end."""
        self.look()
        self._feed(b"\n")

    def refuse(self) -> NoReturn:
        """Raises `MetricError`: there was no report, but maybe one that lacks the metric, which then is named."""
        if self._near is not None:
            self._report(self._near)
        raise MetricError(_nothing(self._command, self._metric))

    def _feed(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            for row in self._rows(line):
                self._report(row)

    def _report(self, row: Row) -> None:
        """Makes a report of the numbers in a row; whatever the metric is goes along, so that it is checked."""
        metrics = {name: value for name, value in row.items() if name == self._metric or isinstance(value, int | float)}
        checkpoint = row.get("checkpoint")
        self.any = True
        report(metrics, self._folder / checkpoint if isinstance(checkpoint, str) else checkpoint)

    def _printed_row(self, line: bytes) -> Iterator[Row]:
        row = _object(line)
        if row is not None and self._metric in row:
            yield row
        elif row:
            self._near = row

    def _written_row(self, line: bytes) -> Iterator[Row]:
        self._number += 1
        row = _object(line)
        if row is not None:
            yield row
        elif line.strip():
            shown = line[:100].decode(errors="replace")
            raise MetricError(f"{self._name}, line {self._number}: {shown!r} is not a JSON object")


class _Lines:
    """Cuts a stream of bytes into lines; the returns of a progress bar end one too."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that are complete now. One that is too long is left out."""
        *lines, rest = re.split(rb"\r?\n|\r", data)
        if lines:
            if not self._skipping:
                yield self._rest + lines[0]
            self._rest, self._skipping = b"", False
            yield from lines[1:]
        self._rest += rest
        if len(self._rest) > _LONGEST_LINE:
            self._rest, self._skipping = b"", True


class _Output:
    """Shows what a command prints as this process's own output, and keeps the last of it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.last = b""

    def write(self, data: bytes) -> None:
        """Passes a piece on. A log that cannot be written must not fail the trial."""
        self.last = (self.last + data)[-_LAST_BYTES:]
        with suppress(OSError, ValueError, AttributeError):  # full, of another encoding, or closed by other code
            stream = getattr(sys, self._stream)
            stream.write(self._decoder.decode(data))
            stream.flush()


def _object(line: bytes) -> Row | None:
    """The JSON object in a line; None where there is something else."""
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _matched(match: re.Match[str]) -> Row:
    row: Row = {name: text for name, text in match.groupdict().items() if text is not None}
    for name, text in row.items():
        with suppress(ValueError):  # a path, or what is refused as no number
            row[name] = float(text) if name != "checkpoint" else text
    return row


def _ended(code: int, stderr: bytes) -> str:
    how = f"exited with code {code}" if code > 0 else f"was ended by {_signal_name(-code)}"
    lines = stderr.decode(errors="replace").splitlines()[-_LAST_LINES:]
    return f"the command {how}" + (
        "; the end of its stderr:\n" + "\n".join(lines) if lines else "; its stderr is empty"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _nothing(command: Command, metric: str) -> str:
    if command.pattern is not None:
        how = f"nothing that it printed to stdout matches the pattern {command.pattern!r}"
    elif command.metrics is not None:
        how = f'write lines such as {{"{metric}": 0.5}} to {command.metrics} in the folder $TUNE_TASKS_FOLDER'
    else:
        how = f'print lines such as {{"{metric}": 0.5}} to stdout, or give the command a pattern'
    return f"the command exited with code 0 and reported nothing; {how}"
