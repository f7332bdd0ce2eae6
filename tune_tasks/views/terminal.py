"""Live progress: a panel that redraws itself on a terminal, and plain lines anywhere else.

Give it standard error: standard output is for results. This module must not change or keep a study, and costs nothing
between two redraws, so that `Progress.update` may be called for every commit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from io import TextIOWrapper
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from tune_tasks.study import StudyState, Trial
from tune_tasks.views import STATES, duration, number, parameters, printable, rungs
from tune_tasks.views.table import Leaderboard, leaderboard

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_REDRAW = 0.25
_SILENCE = 30.0
_TRIALS = 10
_RUNGS = 8


class Progress:
    """Shows how a study stands while it runs: `with Progress(sys.stderr) as progress: ... progress.update(state)`.

    On a terminal a panel, redrawn at most four times a second and left standing at the end. Elsewhere a line when
    there is a new best, ten more trials have begun, or 30 seconds have passed. Not for use from several threads.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        stream = stream or sys.stderr
        console = open_console(stream)
        self._view = _Panel(console) if stream.isatty() and not console.is_dumb_terminal else _Lines(console)
        self._clock = clock
        self._state: StudyState | None = None
        self._next = -1.0
        self._event = (-1.0, 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._state is not None:
                self._show(self._state, self._clock(), last=True)
        finally:
            self._view.close()

    def update(self, state: StudyState) -> None:
        """Shows the state, unless the last one was shown a moment ago; then it waits for the next call or the end."""
        self._state = state
        now = self._clock()
        if now >= self._next:
            self._next = now + _REDRAW
            self._show(state, now, last=False)

    def _show(self, state: StudyState, now: float, *, last: bool) -> None:
        """Adds to the log's time what has passed since its last event: the clock goes on between two reports."""
        if self._event[0] != state.now:
            self._event = state.now, now
        waited = now - self._event[1] if state.since is not None else 0.0
        self._view.show(state, state.elapsed + waited, now, last=last)


class _Panel:
    """Redraws one panel in place."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        # What is printed to standard output is somebody's result: it must not end up in front of the panel.
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False)

    def show(self, state: StudyState, elapsed: float, now: float, *, last: bool) -> None:  # noqa: ARG002  # always
        if not self._live.is_started:
            self._live.start()
        self._live.update(panel(state, elapsed), refresh=True)

    def close(self) -> None:
        self._live.stop()


class _Lines:
    """Prints a line when there is something worth saying."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._best: float | None = None
        self._begun = 0
        self._said = -_SILENCE

    def show(self, state: StudyState, elapsed: float, now: float, *, last: bool) -> None:
        best, begun = state.best, _begun(state)
        value = best.value if best else None
        better = value != self._best
        if not (last or better or begun >= self._begun + _TRIALS or now >= self._said + _SILENCE):
            return
        self._best, self._begun, self._said = value, begun - begun % _TRIALS, now
        line = f"{_spent(state, elapsed)}  trials {begun}/{state.spec.budget.trials}: {_counts(state)}"
        if best:
            line += f"  {'new best' if better else 'best'} {_named(state, best)}"
            line += f"  {parameters(best.params)}" if better or last else ""
        self._console.print(line, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing to end."""


def conclude(state: StudyState, url: str, model: Any, stream: TextIO, limit: int = 10) -> None:
    """Prints how a study ended: the leaderboard's first rows, the best trial, and what became of its model.

    `model` is the `ModelArtifact` of the promotion, or None where there was none.
    """
    console = open_console(stream)
    console.print(Leaderboard(leaderboard(state), state.spec.metric, limit))
    console.print()
    facts = [("study", f"{url}: {len(state.trials)} trials in {duration(state.elapsed)}: {_counts(state)}")]
    if state.best:
        facts += [("best", _named(state, state.best)), ("", parameters(state.best.params))]
    if model:
        stays = "waits for approval" if model.pending else "the champion stays"
        facts.append(("model", f"{model.uri} is the {model.alias}" if model.promoted else stays))
        facts.append(("", model.reason))
        measured = {name: value for name, value in model.evaluation.items() if name != "size"}
        facts += [("", f"{name} {number(value)}") for name, value in measured.items()]
        facts += [("", f"{model.path}/model.json")] if model.path else []
    facts.append(("all", f"tune-tasks report {url} --format html > report.html"))
    for name, content in facts:
        console.print(f"{name:<7}{printable(content)}", markup=False, soft_wrap=True)


def open_console(stream: TextIO) -> Console:
    """A console that never fails on a character: what the stream cannot encode is shown as a question mark."""
    from rich.console import Console

    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="replace")
    return Console(file=stream, highlight=False)


def panel(state: StudyState, elapsed: float) -> RenderableType:
    """The state as a panel for rich: trials by state, the best so far, the rungs, and what is left of the budget.

    `elapsed` is how long the study has been worked on by now, in seconds.
    """
    from rich import box
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    for name, content in _facts(state, elapsed):
        grid.add_row(name, content)
    title = Text(f" {printable(state.spec.name)} ", style="bold")
    return Panel(grid, title=title, title_align="left", border_style="dim", box=box.ROUNDED)


def _facts(state: StudyState, elapsed: float) -> list[tuple[str, Any]]:
    from rich.text import Text

    facts: list[tuple[str, Any]] = [("trials", _bar(state)), ("", _states(state))]
    best = state.best
    if best:
        facts += [("best", Text(_named(state, best), style="bold green")), ("", Text(parameters(best.params)))]
    reached = rungs(state)[-_RUNGS:]
    if reached:
        facts.append(("rungs", Text(" → ".join(f"{count} to {budget}" for budget, count in reached) + " steps")))
    facts.append(("time", Text(_spent(state, elapsed))))
    if state.done:
        facts.append(("done", Text(printable(state.reason))))
    return facts


def _bar(state: StudyState) -> Any:
    """How much of the budget of trials is used, as a bar that fits any width."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    total, begun = state.spec.budget.trials, _begun(state)
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(ratio=1)
    row.add_column(justify="right", no_wrap=True)
    most = max(total, len(state.trials))
    row.add_row(ProgressBar(most, begun, complete_style="green", finished_style="green"), f"{begun} of {total} begun")
    return row


def _states(state: StudyState) -> Text:
    from rich.text import Text

    counted = ((name, state.count(name)) for name in STATES)
    parts = [Text(f"{count} {name}", style=STATES[name]) for name, count in counted if count]
    return Text("  ").join(parts) if parts else Text("none yet", style="dim")


def _begun(state: StudyState) -> int:
    """Trials that had a turn; it grows steadily, also where a scheduler judges all of them at the end."""
    return sum(trial.attempts > 0 for trial in state.trials)


def _counts(state: StudyState) -> str:
    counted = ((name, state.count(name)) for name in STATES)
    return ", ".join(f"{count} {name}" for name, count in counted if count) or "none yet"


def _named(state: StudyState, best: Trial) -> str:
    step = f" at step {best.best_step}" if best.best_step else ""
    return f"{printable(state.spec.metric)} {number(best.value)} (trial {best.number}{step})"


def _spent(state: StudyState, elapsed: float) -> str:
    limit = state.spec.budget.wall_time
    return duration(elapsed) + (f" of {duration(limit)}" if limit is not None else "")
