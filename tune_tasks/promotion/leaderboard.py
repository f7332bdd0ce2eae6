"""The leaderboard of a promotion, for whoever decides: `tune-tasks leaderboard`.

Reads the log and what was measured example by example. This module must not measure or decide anything.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from tune_tasks.promotion.approval import promotion_key
from tune_tasks.promotion.contest import bounds_of
from tune_tasks.studies import Study
from tune_tasks.views import promotion as view


def leaderboard(study: Study, *, run: str | None = None, limit: int = 10) -> view.Standings:
    """The best trials with what they measured again, the champion, every gate, and how an approval stands.

    Of the promotion of a pipeline run, by default of the one that was measured or decided last.
    """
    state = study.refresh()
    key = view.newest(state) if run is None else promotion_key(state, run)
    bounds = bounds_of(study, key) if key is not None else {}
    return view.standings(state, key, url=study.url, bounds=bounds, limit=limit, now=study.now())


def add_command(commands: Any, open_study: Callable[[argparse.Namespace], Study]) -> None:
    """Adds the command to the command line; `open_study` opens what it names."""

    def show(options: argparse.Namespace) -> int:
        found = leaderboard(open_study(options), run=options.run, limit=options.limit)
        view.render(found, options.format, sys.stdout)
        return 0

    command = commands.add_parser("leaderboard", help="candidates and champion, the gates, and how an approval stands")
    command.add_argument("study", metavar="SPEC|URL")
    command.add_argument("--format", choices=view.FORMATS, default=view.FORMATS[0])
    command.add_argument("--run", default=None, help="of this pipeline run's promotion (default: the newest)")
    command.add_argument("--limit", type=int, default=10, metavar="N", help="trials that are shown (default: 10)")
    command.set_defaults(command=show)
