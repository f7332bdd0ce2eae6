"""The leaderboard: every trial, the best first, and why it is where it is; as values, a table, Markdown or JSON.

`leaderboard` is pure; the renderers only lay its rows out. This module must not print.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from tune_tasks.study import StudyState, Trial, TrialStatus
from tune_tasks.views import STATES, number, parameters, printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType


@dataclass(frozen=True, slots=True)
class Row:
    """One trial on the leaderboard. `rank` is None where there is no value to rank; `steps` counts its reports."""

    rank: int | None
    trial: int
    value: float | None
    steps: int
    attempts: int
    state: TrialStatus
    params: dict[str, Any]
    why: str


def leaderboard(state: StudyState) -> list[Row]:
    """Every trial, the best value first; then those without a value, and last those that failed."""
    ranked = sorted(state.ranked(), key=lambda trial: (state.sign * _value(trial), trial.number))
    ranks = {trial.number: rank for rank, trial in enumerate(ranked, start=1)}
    rest = [trial for trial in state.trials if trial.number not in ranks]
    rest.sort(key=lambda trial: (trial.state == "failed", trial.number))
    return [_row(trial, ranks.get(trial.number)) for trial in (*ranked, *rest)]


def as_json(rows: Sequence[Row]) -> str:
    """The rows as a JSON list of objects."""
    return orjson.dumps([asdict(row) for row in rows], option=orjson.OPT_INDENT_2, default=str).decode()


def as_markdown(rows: Sequence[Row], metric: str) -> str:
    """The rows as a Markdown table, for a pull request or an approval."""
    lines = [f"| rank | trial | {_cell(metric)} | steps | attempts | state | parameters | why |"]
    lines.append("|---:|---:|---:|---:|---:|---|---|---|")
    for row in rows:
        cells = (number(row.rank), row.trial, number(row.value), row.steps, row.attempts, row.state)
        texts = (_cell(parameters(row.params)), _cell(row.why))
        lines.append("| " + " | ".join(str(cell) for cell in (*cells, *texts)) + " |")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Rows for rich, laid out for any width: figures, the reason, and the parameters, everything in full.

    `limit` keeps the first rows and says how many are left out.
    """

    rows: Sequence[Row]
    metric: str
    limit: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Draws the rows; called by rich."""
        from rich.cells import cell_len
        from rich.padding import Padding
        from rich.text import Text

        shown = self.rows if self.limit is None else self.rows[: self.limit]
        name = printable(self.metric)
        width = max(len(name), 10)
        head = f"{'#':>3} {'trial':>5} {name:>{width}} {'steps':>5}  {'state':<9}  why"
        yield Text(head, style="bold", no_wrap=True, overflow="ellipsis")
        for row in shown:
            figures = f"{number(row.rank):>3} {row.trial:>5} {number(row.value):>{width}} {row.steps:>5}  "
            line = Text(figures, no_wrap=True, overflow="ellipsis").append(f"{row.state:<9}", style=STATES[row.state])
            below = Text(parameters(row.params), style="dim", overflow="fold")
            why = _last_line(row.why)
            if line.cell_len + cell_len(why) + 2 <= options.max_width:
                line.append(f"  {why}")
            else:
                below = Text(f"{why}\n", overflow="fold").append(below)
            yield line
            yield Padding(below, (0, 0, 0, 10))
        if len(shown) < len(self.rows):
            yield Text(f"    and {len(self.rows) - len(shown)} more", style="dim")


def _row(trial: Trial, rank: int | None) -> Row:
    why = trial.error if trial.state == "failed" and trial.error else trial.why
    return Row(rank, trial.number, trial.value, trial.budget, trial.attempts, trial.state, trial.params, why)


def _value(trial: Trial) -> float:
    return float("inf") if trial.value is None else trial.value


def _last_line(text: str) -> str:
    """The line of a message that says what happened: the last one of a traceback."""
    lines = [line for line in text.splitlines() if line.strip()]
    return printable(lines[-1]) if lines else ""


def _cell(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace("|", "\\|")
