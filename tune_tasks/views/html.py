"""The study as one page of HTML: what was found, how the search went, and what was tried, pruned and why.

Self-contained: styles and charts are inside, nothing is loaded from anywhere. Everything that a user named or printed
is escaped. This module must not read more than the state it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tune_tasks.space import Categorical, Constant, Int
from tune_tasks.study import StudyState, Trial
from tune_tasks.views import STATES, duration, number, parameters, rungs
from tune_tasks.views.rounds import as_html, rounds
from tune_tasks.views.svg import BOTTOM, LEFT, RIGHT, TOP, Axis, axis, chart, dot, line, named_axis, stairs
from tune_tasks.views.table import Row, leaderboard

WIDE, SMALL = (640, 320), (320, 220)
CURVES = 300
"""As many learning curves are drawn; more would hide one another."""
MOST = 1_000
"""As many dots in a chart, and rows of the table: a browser takes seconds over ten times as many."""
POINTS = 200
"""As many points of each."""


def render(state: StudyState) -> str:
    """Draws the study as one HTML document."""
    name = escape(state.spec.name)
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style></head><body><main><h1>{name}</h1>{''.join(_sections(state))}</main></body></html>\n"
    )


def _sections(state: StudyState) -> Iterator[str]:
    rows = leaderboard(state)
    yield _summary(state)
    if state.best:
        yield _winner(state, state.best)
        yield f'<section class="charts">{_figure("Best so far", history(state))}'
        yield f"{_figure(_curves_title(state), curves(state))}</section>{_legend(state)}"
        yield f'<h2>Parameters{_share(state)}</h2><section class="charts small">{"".join(panels(state))}</section>'
        yield _reached(state)
    yield as_html(rounds(state), state.spec.metric)
    yield _tried(rows, state.spec.metric)


def history(state: StudyState) -> str:
    """Every trial's best value at the time when it was reported, and the best value so far as stairs."""
    found = sorted((_time_of_best(state, trial), trial.number, trial.value or 0.0) for trial in state.ranked())
    seconds = found[-1][0] - state.curves.time(found[0][1], 1)
    unit, name = next(((s, n) for s, n in ((1, "seconds"), (60, "minutes")) if seconds < 180 * s), (3600, "hours"))
    origin = found[-1][0] - seconds
    x = axis([0.0, seconds / unit], LEFT, WIDE[0] - RIGHT, log=False)
    y = _values_axis(state, WIDE)
    best: list[tuple[float, float]] = []
    for time, _, value in found:
        if not best or state.sign * value < state.sign * best[-1][1]:
            best.append(((time - origin) / unit, value))
    dots = (
        dot(x.at((_time_of_best(state, trial) - origin) / unit), y.at(trial.value or 0.0), trial.state, _title(trial))
        for trial in _drawn(state, MOST)
    )
    leader = line([(x.at(a), y.at(b)) for a, b in stairs(best, seconds / unit)], "best")
    return chart(x, y, [*dots, leader], size=WIDE, names=(name, state.spec.metric), title="best value over time")


def curves(state: StudyState) -> str:
    """The metric of the trials, step by step, in the colours of their states; the best trial on top."""
    drawn = _drawn(state, CURVES)
    x = axis([1.0, *(float(trial.budget) for trial in drawn)], LEFT, WIDE[0] - RIGHT, whole=True)
    y = axis([v for trial in drawn for v in state.curve(trial.number)], WIDE[1] - BOTTOM, TOP)
    lines = []
    for trial in drawn:
        points = [(x.at(step), y.at(value)) for step, value in _thinned(state.curve(trial.number))]
        style = "best" if trial == state.best else trial.state
        draw = line(points, style, _title(trial)) if len(points) > 1 else dot(*points[0], style, _title(trial), 2.2)
        lines.append(draw)
    return chart(x, y, lines, size=WIDE, names=("step", state.spec.metric), title="learning curves")


def panels(state: StudyState) -> Iterator[str]:
    """One chart for each parameter: the value of each trial over what it used."""
    y, drawn = _values_axis(state, SMALL), _drawn(state, MOST)
    for name, parameter in state.spec.space.root.items():
        trials = [trial for trial in drawn if name in trial.params]
        if trials and not isinstance(parameter, Constant):
            x, places = _parameter_axis(parameter, [trial.params[name] for trial in trials])
            dots = [
                dot(x.at(place), y.at(trial.value or 0.0), _style(state, trial), _title(trial))
                for place, trial in zip(places, trials, strict=True)
            ]
            names = (name, state.spec.metric)
            yield _figure("", chart(x, y, dots, size=SMALL, names=names, title=f"{state.spec.metric} over {name}"))


def _parameter_axis(parameter: Any, used: Sequence[Any]) -> tuple[Axis, list[float]]:
    """The axis of a parameter, and where on it each used value lies."""
    start, end = LEFT, SMALL[0] - RIGHT
    if isinstance(parameter, Categorical):
        names = [str(choice) for choice in parameter.choices]
        return named_axis(names, start, end), [float(names.index(str(value))) for value in used]
    x = axis([parameter.low, parameter.high], start, end, log=parameter.log, whole=isinstance(parameter, Int))
    return x, [float(value) for value in used]


def _values_axis(state: StudyState, size: tuple[int, int]) -> Axis:
    return axis([trial.value for trial in state.ranked() if trial.value is not None], size[1] - BOTTOM, TOP)


def _style(state: StudyState, trial: Trial) -> str:
    return f"{trial.state} winner" if state.best and trial.number == state.best.number else trial.state


def _time_of_best(state: StudyState, trial: Trial) -> float:
    return state.curves.time(trial.number, trial.best_step or 1)


def _drawn(state: StudyState, most: int) -> list[Trial]:
    """The trials that are drawn: all, or the best third of what fits and a regular sample; the best last."""
    ranked = sorted(state.ranked(), key=lambda trial: state.sign * (trial.value or 0.0))
    rest = ranked[most // 3 :]
    stride = max(1, -(-len(rest) // (most - most // 3)))
    return [*reversed(rest[::stride]), *reversed(ranked[: most // 3])]


def _thinned(column: Sequence[float]) -> list[tuple[float, float]]:
    """Steps and values without gaps, at most `POINTS` or so of them, the last one always."""
    points = [(step, value) for step, value in enumerate(column, start=1) if value == value]  # noqa: PLR0124  # not NaN
    stride = max(1, len(points) // POINTS)
    return [(float(step), value) for step, value in (*points[:-1:stride], points[-1])]


def _title(trial: Trial) -> str:
    what = f"trial {trial.number}, {trial.state}: {number(trial.value)} at step {trial.best_step}"
    return f"{what}\n{parameters(trial.params)}"


def _figure(title: str, drawing: str) -> str:
    return f"<figure>{f'<figcaption>{escape(title)}</figcaption>' if title else ''}{drawing}</figure>"


def _curves_title(state: StudyState) -> str:
    return f"Learning curves{_share(state, CURVES)}"


def _share(state: StudyState, most: int = MOST) -> str:
    """How many of the trials are drawn, where that is not all."""
    count, total = len(_drawn(state, most)), sum(1 for _ in state.ranked())
    return "" if count == total else f" of {count} of {total} trials, the best among them"


def _summary(state: StudyState) -> str:
    steps = sum(trial.budget for trial in state.trials)
    facts = [(str(len(state.trials)), f"of {state.spec.budget.trials} trials"), (str(steps), "steps trained")]
    facts += [(duration(state.elapsed), "of driver time")]
    facts += [(str(state.count(name)), name) for name in STATES if state.count(name)]
    tiles = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in facts)
    ended = f"Done: {state.reason}." if state.done else "Not done yet."
    spec = state.spec
    goal = f"{'Smaller' if spec.mode == 'min' else 'Larger'} {spec.metric} is better"
    plan = f"{goal}; {spec.sampler.name} sampler, {spec.scheduler.name} scheduler."
    return f'<p class="lead">{escape(ended)} {escape(plan)}</p><section class="tiles">{tiles}</section>'


def _winner(state: StudyState, best: Trial) -> str:
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(number(v) if isinstance(v, float) else str(v))}</td></tr>"
        for name, v in best.params.items()
    )
    told = "".join(f"<p>{escape(text)}</p>" for text in _promotion(state))
    return (
        f'<section class="winner"><div><span>best {escape(state.spec.metric)}</span><b>{number(best.value)}</b>'
        f"<span>trial {best.number} at step {best.best_step}</span>{told}</div><table>{cells}</table></section>"
    )


def _promotion(state: StudyState) -> Iterator[str]:
    if state.promotions:
        model = state.promotions[-1]
        yield f"{'Promoted' if model.get('promoted') else 'Not promoted'}: {model.get('reason', '')}"
        yield from (f"{name} {number(value)}" for name, value in model.get("evaluation", {}).items())


def _legend(state: StudyState) -> str:
    shown = [name for name in STATES if state.count(name) and name != "failed"]
    items = "".join(f'<span><i class="{name}"></i>{name}</span>' for name in ("best", *shown))
    return f'<p class="legend">{items}</p>'


def _reached(state: StudyState) -> str:
    found = rungs(state)
    if not found:
        return ""
    most = max(count for _, count in found) or 1
    bars = "".join(
        f"<tr><th>{budget} step{'s' * (budget > 1)}</th>"
        f'<td><i style="width:{100 * count / most:.0f}%"></i></td><td>{count}</td></tr>'
        for budget, count in found
    )
    return f'<h2>How far trials went</h2><table class="bars">{bars}</table>'


def _tried(rows: Sequence[Row], metric: str) -> str:
    heads = ("#", "trial", metric, "steps", "attempts", "state", "parameters", "why")
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(_row(row) for row in rows[:MOST])
    left = len(rows) - MOST
    more = f"<p>And {left} trials more, all of which are in <code>tune-tasks export</code>.</p>" if left > 0 else ""
    return (
        '<h2>What was tried, pruned and why</h2><div class="scroll"><table class="tried">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}"
    )


def _row(row: Row) -> str:
    figures = (number(row.rank), str(row.trial), number(row.value), str(row.steps), str(row.attempts))
    cells = "".join(f"<td>{figure}</td>" for figure in figures)
    state = f'<td><i class="{row.state}"></i>{row.state}</td>'
    return f"<tr>{cells}{state}<td>{escape(parameters(row.params))}</td><td>{escape(row.why)}</td></tr>"
