"""What an operator sees: results as text for a terminal, and what is being done while it takes long.

This module must not decide or read anything: it lays out the values that the commands return.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from tune_tasks.events import Ended
from tune_tasks.operate.copy import Copied
from tune_tasks.operate.export import Exported
from tune_tasks.operate.findings import Checked, Finding, Severity
from tune_tasks.operate.gc import Swept
from tune_tasks.operate.history import Record
from tune_tasks.operate.sizes import in_words
from tune_tasks.operate.words import words
from tune_tasks.views import duration, printable
from tune_tasks.views.terminal import open_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

_SHOWN = 5
"""Notes that are shown one by one before the rest of their kind is counted."""
_REDRAW = 0.1
_SEVERITIES: dict[Severity, str] = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_TYPES = {
    "created": "bold",
    "amended": "bold",
    "planned": "blue",
    "opened": "magenta",
    "launched": "magenta",
    "judged": "bold blue",
    "pruned": "yellow",
    "discarded": "dim",
    "checkpointed": "dim",
    "promoting": "green",
    "promoted": "bold green",
}


class Working:
    """Shows on a terminal what a command is at; elsewhere nothing. Called with what, how many are done, of how many."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = open_console(stream) if stream.isatty() else None
        self._clock, self._next = clock, 0.0
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if self._console is not None:
            self._status = self._console.status("looking around")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, what: str, done: int, of: int) -> None:
        """Shows it, at most ten times a second; `of` is 0 where that is not known."""
        now = self._clock()
        if self._status is not None and now >= self._next:
            self._next = now + _REDRAW
            self._status.update(f"{what}  {done} of {of}" if of else f"{what}  {done}")


def show_checked(checked: Checked, stream: TextIO) -> None:
    """What was verified, every error and warning, the notes by kind, and whether the study is sound."""
    console = open_console(stream)
    _facts(console, _verified(checked))
    for _, group in groupby(checked.findings, key=lambda finding: (finding.severity, finding.remedy)):
        same = list(group)
        shown = same[:_SHOWN] if same[0].severity == "note" else same
        console.print()
        for finding in shown:
            console.print(_finding(finding))
        if len(shown) < len(same):
            console.print(f"{'':9}and {len(same) - len(shown)} more like these; --json has all of them", style="dim")
        _indented(console, f"→ {same[0].remedy}")
    console.print()
    console.print(_verdict(checked))


def show_record(record: Record, stream: TextIO, console: Console | None) -> None:
    """One event on one line; with colours where there is a console."""
    at = datetime.fromtimestamp(record.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    who = f"driver {record.epoch}" if record.role == "driver" else "step"
    kind, told = record.event.type, words(record.event)
    if console is None:
        stream.write(f"{record.segment:>6}  {at}  {who:<10} {kind:<13} {told}\n")
        return
    from rich.text import Text

    failed = isinstance(record.event, Ended) and record.event.outcome in {"failed", "lost"}
    place, style = f"{record.segment:>6}  {at}  {who:<10} ", "red" if failed else _TYPES.get(kind, "")
    console.print(Text.assemble((place, "dim"), (f"{kind:<13} ", style), told), soft_wrap=True)


def show_exported(exported: Exported, stream: TextIO) -> None:
    """The files, with their rows and sizes."""
    console = open_console(stream)
    facts = [("study", f"{exported.study}, {exported.segments} segments")]
    facts += [("wrote", f"{file.url}: {file.rows} rows, {in_words(file.size)}") for file in exported.files]
    _facts(console, facts)


def show_copied(copied: Copied, stream: TextIO) -> None:
    """What was copied, and what must never be done with the copy."""
    sent = f"{copied.sent} segments, {copied.folders} checkpoints and models, {in_words(copied.size)}"
    facts = [
        ("from", copied.source),
        ("to", f"{copied.target}: all {copied.segments} segments, in the same state"),
        ("sent", sent if copied.sent or copied.files else "nothing: the copy was complete"),
        ("note", "from here on these are two studies with one id: never drive both under one registry"),
        ("verify", f"tune-tasks fsck {copied.target}"),
    ]
    _facts(open_console(stream), facts)


def show_swept(swept: Swept, stream: TextIO) -> None:
    """Everything that was removed, and what was left and why."""
    console = open_console(stream)
    for removal in swept.removals:
        figures = f"{in_words(removal.size):>8}  {duration(removal.age):>7} old"
        console.print(f"{removal.kind:<18}{figures}  {removal.key}", markup=False, soft_wrap=True)
    if swept.removals:
        console.print()
    done = "would remove" if swept.dry_run else "removed"
    counts = _counted([removal.kind for removal in swept.removals])
    facts = [("study", swept.url), (done, f"{counts}, {in_words(swept.size)}" if counts else "nothing")]
    if swept.younger:
        young = f"{swept.younger} that nothing names, not older than {duration(swept.grace)}"
        facts.append(("left", young))
    facts += [("left", f"{key}: a model that no promotion names; delete it by hand") for key in swept.models]
    facts += [("left", f"{key}: nothing that tune_tasks writes") for key in swept.unknown]
    _facts(console, facts, width=13)


def _verified(checked: Checked) -> Iterator[tuple[str, str]]:
    yield "study", f"{checked.url}" + (f", id {checked.study}" if checked.study else "")
    if checked.trials is not None:
        yield "", f"{checked.trials} trials, {'done' if checked.done else 'not done'}"
    yield "log", f"{checked.segments} segments with {checked.events} events, {checked.snapshots} snapshots"
    read = f"{checked.files} files with {in_words(checked.size)} read through" if checked.files else "not read through"
    yield "data", f"{checked.checkpoints} checkpoints, {checked.models} models, {read}"


def _finding(finding: Finding) -> Text:
    from rich.text import Text

    severity = (f"{finding.severity:<9}", _SEVERITIES[finding.severity])
    return Text.assemble(severity, (printable(finding.key), "bold"), f" {printable(finding.problem)}")


def _verdict(checked: Checked) -> Text:
    from rich.text import Text

    counts = [f"{checked.count(s)} {s}{'' if checked.count(s) == 1 else 's'}" for s in _SEVERITIES if checked.count(s)]
    told = f" ({', '.join(counts)})" if counts else ""
    if checked.sound:
        return Text.assemble(("sound", "bold green"), f": nothing recorded is lost{told}")
    return Text.assemble(("broken", "bold red"), f": see above{told}")


def _counted(kinds: list[str]) -> str:
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    return ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts.items())


def _indented(console: Console, text: str) -> None:
    from rich.padding import Padding

    console.print(Padding(printable(text), (0, 0, 0, 9)), markup=False)


def _facts(console: Console, facts: Iterator[tuple[str, str]] | list[tuple[str, str]], width: int = 9) -> None:
    for name, content in facts:
        console.print(f"{name:<{width}}{printable(content)}", markup=False, soft_wrap=True)
