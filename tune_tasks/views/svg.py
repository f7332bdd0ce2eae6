"""Charts as SVG text: scales, axes with round ticks, lines and dots, for a page that loads nothing.

Small pure functions from numbers to text. Colours are classes, which the page defines for light and for dark. This
module must not know what a study is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 40
"""The margins of a chart, in pixels: room for the ticks and the names of the axes."""

_ROOM = 0.04


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps [low, high] to pixels from `start` to `end`, with ticks at round numbers, or at whole ones.

    With `names`, the numbers 0, 1, ... stand for names without order.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False
    names: tuple[str, ...] = ()

    def at(self, value: float) -> float:
        """The pixel of a value; one outside the range is drawn at its edge."""
        value = min(max(value, self.low), self.high)
        low, high, here = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (here - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Round values inside the range, with their labels."""
        if self.names:
            return [(float(index), name) for index, name in enumerate(self.names)]
        values = _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)
        return [(value, f"{value:g}") for value in values if not self.whole or value == round(value)]


def axis(values: Iterable[float], start: float, end: float, *, log: bool | None = None, whole: bool = False) -> Axis:
    """An axis that holds all values with a little room; `whole` has whole numbers only.

    `log` None chooses: a logarithmic scale where all values are positive and the largest is 20 times the smallest.
    """
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    logarithmic = (low > 0 and high / low > 20) if log is None else log and low > 0
    if low == high:
        low, high = (low / 2, high * 2) if logarithmic else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
    if logarithmic:
        room = (high / low) ** _ROOM
        return Axis(low / room, high * room, start, end, log=True, whole=whole)
    room = (high - low) * _ROOM
    return Axis(low - room, high + room, start, end, whole=whole)


def named_axis(names: Sequence[str], start: float, end: float) -> Axis:
    """An axis with one place for each name."""
    return Axis(-0.5, len(names) - 0.5, start, end, names=tuple(names))


def chart(
    x: Axis, y: Axis, content: Iterable[str], *, size: tuple[int, int], names: tuple[str, str], title: str
) -> str:
    """A chart: grid, ticks, the names of the axes, and `content` on top; `title` is for who cannot see it."""
    width, height = size
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">']
    for value, label in y.ticks():
        row = y.at(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{row:.1f}" y2="{row:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{row + 3.5:.1f}" text-anchor="end">{escape(label)}</text>')
    for value, label in x.ticks():
        column = x.at(value)
        foot = height - BOTTOM
        parts.append(f'<line class="grid" x1="{column:.1f}" x2="{column:.1f}" y1="{TOP}" y2="{foot}"/>')
        parts.append(f'<text class="tick" x="{column:.1f}" y="{foot + 15}" text-anchor="middle">{escape(label)}</text>')
    middle, centre = (LEFT + width - RIGHT) / 2, (TOP + height - BOTTOM) / 2
    parts.append(f'<text class="name" x="{middle}" y="{height - 6}" text-anchor="middle">{escape(names[0])}</text>')
    turned = f'transform="translate(12 {centre}) rotate(-90)"'
    parts.append(f'<text class="name" {turned} text-anchor="middle">{escape(names[1])}</text>')
    return "".join([*parts, *content, "</svg>"])


def line(points: Iterable[tuple[float, float]], style: str, title: str = "") -> str:
    """A line through pixels."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{escape(style)}" points="{path}">{_title(title)}</polyline>'


def dot(x: float, y: float, style: str, title: str = "", radius: float = 3.2) -> str:
    """A dot at a pixel; `title` shows when it is pointed at."""
    return f'<circle class="{escape(style)}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">{_title(title)}</circle>'


def stairs(points: Sequence[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """Corners of a line that keeps its height until the next point, and on to `end`."""
    corners: list[tuple[float, float]] = []
    for x, y in points:
        corners += [(x, corners[-1][1]), (x, y)] if corners else [(x, y)]
    return [*corners, (end, corners[-1][1])] if corners else []


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def _linear_ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, five or so."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step)
    return [round(index * step, 12) for index in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten; with 2 and 5 times them where there would be few, every other one where there would be many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    stride = 1 + (last - first) // 7
    values = [factor * 10.0**power for power in range(first, last + 1, stride) for factor in factors]
    return [value for value in values if low <= value <= high] or [low, high]
