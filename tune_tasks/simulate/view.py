"""A forecast as a person looks at it: a table and two lines of blocks in a terminal, charts in a file.

This module must not compute what a forecast does not say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tune_tasks import views
from tune_tasks.simulate.result import Forecast, Play
from tune_tasks.views import duration, number, printable
from tune_tasks.views.svg import BOTTOM, LEFT, RIGHT, TOP, axis, chart, line, stairs
from tune_tasks.views.terminal import open_console

if TYPE_CHECKING:
    from rich.table import Table

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH = 60
SIZE = (640, 320)
NAMES = ("on demand", "preemptible")
_STYLES = ("completed", "best")


def show(forecast: Forecast, stream: TextIO) -> None:
    """Prints the forecast: figures side by side, slots and best value as they go, and the assumptions."""
    console = open_console(stream)
    console.print(f"{printable(forecast.study)}: {forecast.flow}", markup=False, soft_wrap=True)
    console.print(_table(forecast))
    for name, play in zip(NAMES, forecast.plays, strict=True):
        ends = f"{duration(play.wall_time)}, {play.pool.nodes * play.pool.slots} slots"
        console.print(f"busy slots, {name:<13} |{_bars(_busy(play))}| {ends}", soft_wrap=True, markup=False)
    for name, play in zip(NAMES, forecast.plays, strict=True):
        if play.progress:
            first, last = number(play.progress[0][2]), number(play.progress[-1][2])
            console.print(
                f"best by cost, {name:<11} |{_bars(_best(play))}| {first} to {last}", soft_wrap=True, markup=False
            )
    console.print("\nThis assumes that", markup=False)
    for assumption in forecast.assumptions:
        console.print(f"- {printable(assumption)}", markup=False, soft_wrap=True)


def write(forecast: Forecast, path: Path) -> None:
    """Draws slots over time and best value over cost into an .svg file, or an .html page."""
    style = (Path(views.__file__).parent / "page.css").read_text(encoding="utf-8")
    drawings = [_slots(forecast), _values(forecast)]
    if path.suffix == ".svg":
        text = _stacked(drawings, style)
    else:
        figures = "".join(f"<figure>{drawing}</figure>" for drawing in drawings)
        notes = "".join(f"<li>{escape(assumption)}</li>" for assumption in forecast.assumptions)
        rows = "".join(
            f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
            for name, cells in _rows(forecast)
        )
        head = "".join(f"<th>{name}</th>" for name in ("", *NAMES))
        legend = "".join(f'<span><i class="{s}"></i>{n}</span>' for n, s in zip(NAMES, _STYLES, strict=True))
        text = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(forecast.study)}</title>'
            f"<style>{style}</style></head><body><main><h1>{escape(forecast.study)}, simulated</h1>"
            f'<p class="lead">{escape(forecast.flow)}</p><table><tr>{head}</tr>{rows}</table>'
            f'<section class="charts">{figures}</section><p class="legend">{legend}</p>'
            f"<h2>Assumptions</h2><ul>{notes}</ul></main></body></html>\n"
        )
    path.write_text(text, encoding="utf-8")


def _table(forecast: Forecast) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("")
    for name in NAMES:
        table.add_column(name, justify="right")
    for name, cells in _rows(forecast):
        table.add_row(name, *cells)
    return table


def _rows(forecast: Forecast) -> Iterator[tuple[str, list[str]]]:
    plays = forecast.plays
    yield "wall time", [duration(play.wall_time) for play in plays]
    if any(play.pool.gpus for play in plays):
        yield "GPU hours", [f"{play.gpu_hours:.2f}" for play in plays]
    yield "CPU hours", [f"{play.cpu_hours:.2f}" for play in plays]
    yield "cost", [f"{play.cost:.2f}" for play in plays]
    yield "utilisation", [f"{play.utilisation:.1%}" for play in plays]
    yield "steps", [str(play.steps) for play in plays]
    yield "work repeated", [f"{play.repeated} steps, {duration(play.wasted_time)}" for play in plays]
    taken = (f"{play.preemptions} nodes: {play.lost} lost, {play.moved} moved" for play in plays)
    yield "preemptions", list(taken)
    yield "trials", [_states(play) for play in plays]
    yield f"best {printable(forecast.metric)}", [number(play.best) for play in plays]
    yield "ends as", [printable(play.reason) for play in plays]


def _states(play: Play) -> str:
    return ", ".join(f"{count} {name}" for name, count in play.trials.items() if count) or "none"


def _busy(play: Play) -> list[float]:
    """The share of all slots that is busy, in `WIDTH` steps of equal time."""
    total = play.pool.nodes * play.pool.slots
    return _sampled([(time, busy / total) for time, _, busy in play.usage], play.wall_time)


def _best(play: Play) -> list[float]:
    """How far the best value has come from the first to the last, in `WIDTH` steps of equal cost."""
    first, last = play.progress[0][2], play.progress[-1][2]
    way = (last - first) or 1.0
    return _sampled([(cost, (value - first) / way) for _, cost, value in play.progress], play.cost)


def _sampled(points: Sequence[tuple[float, float]], end: float) -> list[float]:
    found, index = [], -1
    for column in range(WIDTH):
        place = end * (column + 0.5) / WIDTH
        while index + 1 < len(points) and points[index + 1][0] <= place:
            index += 1
        found.append(points[index][1] if index >= 0 else 0.0)
    return found


def _bars(shares: Iterable[float]) -> str:
    """A character for each share from 0 to 1; what is not nothing is seen."""
    last = len(BLOCKS) - 1
    return "".join(BLOCKS[max(round(share * last), share > 0)] for share in shares)


def _slots(forecast: Forecast) -> str:
    unit, name = _unit(max(play.wall_time for play in forecast.plays))
    x = axis([0.0, max(play.wall_time for play in forecast.plays) / unit], LEFT, SIZE[0] - RIGHT, log=False)
    most = max(play.pool.nodes * play.pool.slots for play in forecast.plays)
    y = axis([0.0, float(most)], SIZE[1] - BOTTOM, TOP, log=False)
    lines = [
        line(
            [
                (x.at(time / unit), y.at(busy))
                for time, busy in stairs([(time, busy) for time, _, busy in play.usage], play.wall_time)
            ],
            style,
            kind,
        )
        for play, style, kind in zip(forecast.plays, _STYLES, NAMES, strict=True)
    ]
    return chart(x, y, lines, size=SIZE, names=(name, "busy slots"), title="busy slots over time")


def _values(forecast: Forecast) -> str:
    values = [value for play in forecast.plays for _, _, value in play.progress]
    x = axis([0.0, *(play.cost for play in forecast.plays)], LEFT, SIZE[0] - RIGHT, log=False)
    y = axis(values, SIZE[1] - BOTTOM, TOP)
    lines = [
        line(
            [
                (x.at(cost), y.at(value))
                for cost, value in stairs([(cost, value) for _, cost, value in play.progress], play.cost)
            ],
            style,
            kind,
        )
        for play, style, kind in zip(forecast.plays, _STYLES, NAMES, strict=True)
    ]
    return chart(x, y, lines, size=SIZE, names=("cost", forecast.metric), title="best value over cost")


def _unit(seconds: float) -> tuple[float, str]:
    return next(((s, n) for s, n in ((1.0, "seconds"), (60.0, "minutes")) if seconds < 180 * s), (3600.0, "hours"))


def _stacked(drawings: Sequence[str], style: str) -> str:
    """Charts one below the other as one SVG that stands alone."""
    width, height = SIZE
    parts = [
        re.sub(r"^<svg ", f'<svg y="{height * index}" width="{width}" height="{height}" ', drawing)
        for index, drawing in enumerate(drawings)
    ]
    # The page's rule for svg would stretch the inner ones.
    inner = f"{style}\nsvg svg {{ width: {width}px; height: {height}px; }}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height * len(parts)}">'
        f"<style>{escape(inner, quote=False)}</style>{''.join(parts)}</svg>\n"
    )
