"""The command `track`: shows a study in all that its spec names, now, or until it is done.

Where it is shown goes to stdout as JSON. This module must not do what `following` could do for a script too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import orjson

from tune_tasks.tracking.following import track

_ABOUT = (
    "Brings every tracker of the study up to date from its log, with what is new there and nothing twice. Run it after "
    "a tracking server was down, or after runs were deleted: then they come back the same."
)


def add_command(commands: Any, locate: Callable[[str], str]) -> None:
    """Adds `track` to a parser. `locate` turns what a person types for a study into its URL."""
    command = commands.add_parser("track", help="show a study in MLflow, TensorBoard and tables", description=_ABOUT)
    command.add_argument("study", metavar="URL")
    command.add_argument("--follow", action="store_true", help="go on until the study is done, or Ctrl-C")
    command.set_defaults(command=_track, locate=locate)


def _track(options: argparse.Namespace) -> int:
    url = options.locate(options.study)
    shown = {"study": url, "shown": track(url, follow=options.follow)}
    sys.stdout.write(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode() + "\n")
    return 0
