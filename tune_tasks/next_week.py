"""The commands for what follows a study: `extend` goes on with it, and `retrain` begins the next run of its schedule.

`train-final` is in the step table. This module must not decide anything: it reads arguments and prints JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

Pair = Callable[[str], tuple[str, Any]]
"""Reads KEY=VALUE."""


def add_commands(commands: Any, pair: Pair, finish: Callable[[Any, argparse.Namespace], int]) -> None:
    """Adds both to the command line; `finish` runs a study to its promoted model, as `run` does."""
    further = commands.add_parser("extend", help="open a study again: more trials, longer budgets, a wider space")
    further.add_argument("study", metavar="URL")
    further.add_argument(
        "--set",
        action="append",
        required=True,
        metavar="KEY=VALUE",
        help="budget.trials=128, scheduler.max_budget=81, space.learning_rate.high=10, sampler=random",
    )
    further.set_defaults(command=lambda options: _extend(options, pair))
    again = commands.add_parser("retrain", help="the next run of a schedule, to a promoted model; again to go on")
    again.add_argument("study", metavar="SPEC", help="a YAML or JSON file")
    again.add_argument("--run", required=True, help="names the run: its date, or what the schedule calls it")
    again.add_argument("--data", metavar="URL|VERSION", help="what is trained on; of files, their digest is added")
    again.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace a value of the spec")
    again.add_argument("--amend", action="store_true", help="accept changed sections, where the run was begun")
    again.add_argument("--no-promote", action="store_true", help="the search alone: no final training, no model")
    again.set_defaults(command=lambda options: _retrain(options, pair, finish))


def data_named(text: str | None) -> str | None:
    """What a run records as its data: a version as it is, a URL or a path with the digest of what lies there."""
    from tune_tasks.fingerprints import fingerprint
    from tune_tasks.store.names import shown_url

    if text is None or ("://" not in text and not Path(text).exists()):
        return text
    return f"{shown_url(text) if '://' in text else Path(text).resolve()}#{fingerprint(text)}"


def _extend(options: argparse.Namespace, pair: Pair) -> int:
    from tune_tasks.steps import perform

    _print(perform("extend", options.study, changes=dict(pair(text) for text in options.set)))
    return 0


def _retrain(options: argparse.Namespace, pair: Pair, finish: Callable[[Any, argparse.Namespace], int]) -> int:
    from tune_tasks.retraining import retrain
    from tune_tasks.spec import load_spec

    spec = load_spec(options.study, dict(pair(text) for text in options.set))
    outcome = retrain(spec, run=options.run, data=data_named(options.data), amend=options.amend)
    if outcome.study is None:
        _print({"series": outcome.series, "run": outcome.run, "study": None, "skipped": outcome.reason})
        return 0
    print(f"Run {outcome.run} of {outcome.series} {outcome.reason}", file=sys.stderr)  # noqa: T201  # for people
    options.run = None  # a pipeline run of this study, which is one run of the schedule already
    return finish(outcome.study, options)


def _print(value: Any) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")
