"""The champions of a study's model, for a person and for the steps: who is, who was, and back to an earlier one.

This module must not decide who becomes the champion: `promote` does.
"""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from tune_tasks.registry import FOLDER, Champions, Registry, Reign, default_uri
from tune_tasks.store import open_objects

if TYPE_CHECKING:
    from tune_tasks.studies import Study


def champions(study: Study) -> Champions:
    """The champions of the model that a study promotes to: in MLflow, or where there is no registry, in the store."""
    promotion, store = study.spec.promotion, study.store
    uri = default_uri(promotion.registry, store)
    objects = open_objects(f"{store}/{FOLDER}")
    return Champions(objects, study.spec.model, promotion.alias, Registry(uri) if uri else None)


def history(study: Study) -> list[Reign]:
    """Every champion of the study's model, the oldest first: since when, and why."""
    return champions(study).history()


def rollback(study: Study, version: str | None = None, *, why: str, by: str | None = None) -> Reign:
    """Makes an earlier champion the champion again: `version`, by default the one that the present one replaced.

    The alias moves as in a promotion, and what was deployed stays until the next deploy step. `by` is by default the
    user's name. Raises `ConfigError` where there is no such champion, `Unavailable` where someone else was faster.
    """
    return champions(study).rollback(version, who=by or getpass.getuser(), why=why, time=time.time())


def add_commands(commands: Any, open_study: Callable[[argparse.Namespace], Study]) -> None:
    """Adds `history` and `rollback` to the command line; `open_study` opens what a command names."""

    def tell(options: argparse.Namespace) -> int:
        _print([reign.model_dump(mode="json") for reign in history(open_study(options))])
        return 0

    def go_back(options: argparse.Namespace) -> int:
        reign = rollback(open_study(options), options.to, why=options.why, by=options.by)
        _print(reign.model_dump(mode="json"))
        return 0

    past = commands.add_parser("history", help="the champions of a study's model, as JSON")
    past.set_defaults(command=tell)
    back = commands.add_parser("rollback", help="make an earlier champion the champion again")
    back.add_argument("--to", metavar="VERSION", help="by default the one that the present champion replaced")
    back.add_argument("--by", help="who decided (default: the user)")
    back.add_argument("--why", required=True, help="the reason, for the history")
    back.set_defaults(command=go_back)
    for command in (past, back):
        command.add_argument("study", metavar="SPEC|URL")


def _print(value: Any) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")
