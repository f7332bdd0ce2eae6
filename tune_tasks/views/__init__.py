"""What a person looks at: a leaderboard, live progress in a terminal, and a page that is drawn. One view a file.

Views read a `StudyState` and nothing else: this package must not read the log, decide, or keep anything. Nor may it be
called `report`, which would hide the function of that name from every objective.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO

from tune_tasks.errors import invalid
from tune_tasks.study import StudyState, TrialStatus

STATES: Mapping[TrialStatus, str] = {
    "completed": "green",
    "running": "cyan",
    "paused": "blue",
    "queued": "dim",
    "pruned": "yellow",
    "failed": "red",
}
"""The states of a trial in the order in which they are shown, with the terminal's style for each."""

FORMATS = ("table", "markdown", "json", "html")


def number(value: float | None) -> str:
    """A number as a person reads it: four significant digits, and a dash where there is none."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds as 8.3s, 4m05s or 2h03m."""
    if seconds < 59.5:
        return f"{seconds:.1f}s" if seconds < 9.95 else f"{round(seconds)}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def parameters(params: Mapping[str, Any]) -> str:
    """Parameters on one line, without control characters."""
    return printable(" ".join(f"{name}={number(v) if isinstance(v, float) else v}" for name, v in params.items()))


def printable(text: str) -> str:
    """The text on one line, with everything that could steer a terminal replaced by a space."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def rungs(state: StudyState) -> list[tuple[int, int]]:
    """The budgets, in steps, at which trials were or will be judged, and how many trials reached each."""
    budgets = sorted({trial.target for trial in state.trials if trial.target is not None})
    return [(budget, sum(trial.budget >= budget for trial in state.trials)) for budget in budgets]


def render(state: StudyState, form: str, stream: TextIO) -> None:
    """Writes every trial as a table, as Markdown or JSON, or draws the study as one page of HTML."""
    from tune_tasks.views.html import render as draw
    from tune_tasks.views.table import Leaderboard, as_json, as_markdown, leaderboard
    from tune_tasks.views.terminal import open_console

    match form:
        case "table":
            open_console(stream).print(Leaderboard(leaderboard(state), state.spec.metric))
        case "markdown":
            stream.write(as_markdown(leaderboard(state), state.spec.metric))
        case "json":
            stream.write(as_json(leaderboard(state)) + "\n")
        case "html":
            stream.write(draw(state))
        case _:
            raise invalid("format", form, f"allowed are {', '.join(FORMATS)}", FORMATS)
