"""The operators' commands: what each takes from the command line, and where its result goes.

Results go to stdout, for people or with `--json` for machines; what is being done goes to stderr. This module must not
do what a function of this package could do for an orchestrator too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from tune_tasks.errors import CorruptLog, invalid
from tune_tasks.operate import check_study, copy_study, export_study, follow_events, read_events, sweep_study, terminal
from tune_tasks.operate.formats import FORMATS
from tune_tasks.operate.gc import GRACE
from tune_tasks.operate.words import TYPES
from tune_tasks.sections import Duration
from tune_tasks.views.terminal import open_console

_COPY = (
    "Copies the log byte for byte and what it names, verified; run again, it goes on. The copy is a second study with "
    "the same id from then on: never drive both under one registry, where their models would take each other's place."
)
_GC = (
    "Removes checkpoints that the log does not name (any more), uploads that never finished, temporary files, old "
    "snapshots and leftovers of probes, where they are older than the grace period by the store's own clock. May run "
    "beside a driver, as long as no driver is stopped for longer than that between a checkpoint and its record."
)


def add_commands(commands: Any, locate: Callable[[str], str]) -> None:
    """Adds the operators' commands to a parser. `locate` turns what a person types for a study into its URL."""
    fsck = commands.add_parser("fsck", help="verify every object of a study, and say what is wrong and what to do")
    fsck.add_argument("--no-data", action="store_true", help="sizes of checkpoints and models only, not every byte")
    log = commands.add_parser("log", help="what happened, event by event")
    _add_filters(log)
    export = commands.add_parser("export", help="write trials, reports and events as tables")
    export.add_argument("--to", required=True, metavar="FOLDER|URL", help="where the three files go")
    export.add_argument("--format", choices=FORMATS, default=FORMATS[0])
    copy = commands.add_parser("copy", help="copy a study to another store, verified", description=_COPY)
    copy.add_argument("study", metavar="FROM")
    copy.add_argument("target", metavar="TO")
    gc = commands.add_parser("gc", help="remove what nothing names", description=_GC)
    gc.add_argument("--grace", default=f"{GRACE / 3600:g}h", metavar="DURATION", help="for example 90m (default: 24h)")
    gc.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")
    functions = {fsck: _fsck, log: _log, export: _export, copy: _copy, gc: _gc}
    for command, function in functions.items():
        if command is not copy:
            command.add_argument("study", metavar="URL")
        command.add_argument("--json", action="store_true", help="for machines")
        command.set_defaults(command=function, locate=locate)


def _add_filters(log: argparse.ArgumentParser) -> None:
    log.add_argument("--trial", type=int, default=None, help="only what is about this trial")
    log.add_argument(
        "--type", action="append", default=[], metavar="TYPE", help=f"only these; again for more: {', '.join(TYPES)}"
    )
    log.add_argument("--from", dest="start", type=int, default=1, metavar="SEGMENT", help="from this segment on")
    log.add_argument("--last", type=int, default=None, metavar="N", help="only the last N")
    log.add_argument("--follow", action="store_true", help="go on until the study is done, or Ctrl-C")


def _fsck(options: argparse.Namespace) -> int:
    with terminal.Working(sys.stderr) as working:
        checked = check_study(options.locate(options.study), data=not options.no_data, progress=working)
    _show(options, checked.to_dict, lambda: terminal.show_checked(checked, sys.stdout))
    return 0 if checked.sound else CorruptLog.exit_code


def _log(options: argparse.Namespace) -> int:
    read = follow_events if options.follow else read_events
    records = read(
        options.locate(options.study),
        trial=options.trial,
        types=options.type,
        start=options.start,
        last=options.last,
    )
    console = open_console(sys.stdout) if sys.stdout.isatty() else None
    record = None
    for record in records:
        if options.json:
            sys.stdout.write(orjson.dumps(record.to_dict()).decode() + "\n")
        else:
            terminal.show_record(record, sys.stdout, console)
        if options.follow:
            sys.stdout.flush()
    if record is None:
        print("No event is what was asked for.", file=sys.stderr)  # noqa: T201  # or a typing error looks like silence
    return 0


def _export(options: argparse.Namespace) -> int:
    with terminal.Working(sys.stderr) as working:
        exported = export_study(options.locate(options.study), options.to, form=options.format, progress=working)
    _show(options, exported.to_dict, lambda: terminal.show_exported(exported, sys.stdout))
    return 0


def _copy(options: argparse.Namespace) -> int:
    with terminal.Working(sys.stderr) as working:
        copied = copy_study(options.locate(options.study), options.target, progress=working)
    _show(options, copied.to_dict, lambda: terminal.show_copied(copied, sys.stdout))
    return 0


def _gc(options: argparse.Namespace) -> int:
    grace = _seconds(options.grace)
    with terminal.Working(sys.stderr) as working:
        swept = sweep_study(options.locate(options.study), grace=grace, dry_run=options.dry_run, progress=working)
    _show(options, swept.to_dict, lambda: terminal.show_swept(swept, sys.stdout))
    return 0


def _seconds(text: str) -> float:
    """A duration as in a spec; 0 too, for who knows that nobody is at work."""
    if text in {"0", "0s"}:
        return 0.0
    try:
        value: float = TypeAdapter(Duration).validate_python(text)
    except ValidationError:
        raise invalid("--grace", text, "write seconds, or for example 90m, 24h, 7d") from None
    return value


def _show(options: argparse.Namespace, value: Callable[[], Mapping[str, Any]], show: Callable[[], None]) -> None:
    if options.json:
        sys.stdout.write(orjson.dumps(value(), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        show()
