"""Who should be promoted: candidates and champion with what they measured, every gate, and how an approval stands.

For whoever decides; as values, a table, Markdown or JSON. `standings` reads a state and the bounds that it is given,
and the renderers only lay them out. This module must not measure, and must not decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from statistics import fmean
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

import orjson

from tune_tasks.errors import invalid
from tune_tasks.study import StudyState
from tune_tasks.views import number, parameters, printable
from tune_tasks.views.table import Row, leaderboard

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

Bounds: TypeAlias = Mapping[str, Mapping[str, tuple[float, float]]]
"""By model and metric, between what it lies."""

FORMATS = ("table", "markdown", "json")


@dataclass(frozen=True, slots=True)
class Contender:
    """A trial, or the champion (without rank): its value in the search, and what it measured again, with bounds."""

    model: str
    rank: int | None
    trial: int | None
    value: float | None
    budget: int | None
    params: dict[str, Any]
    evaluation: dict[str, float] = field(default_factory=dict)
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Standings:
    """A promotion as far as it has come. `metric` decides, `searched` was optimised; `approval` is in words."""

    study: str
    key: str | None
    searched: str
    metric: str
    contenders: tuple[Contender, ...]
    champion: Contender | None
    gates: tuple[dict[str, Any], ...]
    reason: str
    approval: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Draws it; called by rich."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
        for head in _heads(self):
            table.add_column(head, overflow="fold", justify="left" if head in {"parameters", "model"} else "right")
        for each in _rows(self):
            table.add_row(*each)
        yield table
        for gate in self.gates:
            yield Text(f"\n{_mark(gate)}  ", style="green" if gate["passed"] else "red", end="").append(
                f"{gate['name']}: {printable(gate['reason'])}", style="default"
            )
        yield Text("\n" * bool(self.gates) + f"\n{self.reason}\napproval: {self.approval}")


def newest(state: StudyState) -> str | None:
    """The step key of the promotion that was measured or decided last."""
    for step in reversed(state.steps):
        head, found, _ = step.partition("/promote")
        if found:
            return head + found
    return None


def standings(
    state: StudyState, key: str | None, *, url: str, bounds: Bounds, limit: int = 10, now: float = 0.0
) -> Standings:
    """The best `limit` trials and all that were measured under a step key, and what was decided of them."""
    measured = _measured(state, key)
    models = {int(model.split("-")[1]): model for model in measured if model.startswith("trial-")}
    rows = [row for row in leaderboard(state) if row.rank is not None and (row.rank <= limit or row.trial in models)]
    decided = state.steps.get(f"{key}/decision")
    promotion = state.spec.promotion
    return Standings(
        study=url,
        key=key,
        searched=state.spec.metric,
        metric=(promotion.metric or state.spec.metric) if promotion.evaluate else state.spec.metric,
        contenders=tuple(_contender(row, models.get(row.trial), measured, bounds) for row in rows),
        champion=_champion(decided, measured, bounds),
        gates=tuple(decided["gates"]) if decided else (),
        reason=_one_line(decided["reason"]) if decided else "nothing was decided yet; run promote-best",
        approval=_approval(state, key, decided, now),
    )


def render(found: Standings, form: str, stream: TextIO) -> None:
    """Writes it as a table, as Markdown for a pull request or a message, or as JSON."""
    from tune_tasks.views.terminal import open_console

    match form:
        case "table":
            open_console(stream).print(found)
        case "markdown":
            stream.write(as_markdown(found))
        case "json":
            stream.write(orjson.dumps(asdict(found), option=orjson.OPT_INDENT_2, default=str).decode() + "\n")
        case _:
            raise invalid("format", form, f"allowed are {', '.join(FORMATS)}", FORMATS)


def as_markdown(found: Standings) -> str:
    """Two tables, of models and of gates, and what is to be said of them."""
    heads = _heads(found)
    lines = [f"| {' | '.join(_cell(head) for head in heads)} |"]
    lines.append("|" + "|".join("---" if head in {"parameters", "model"} else "---:" for head in heads) + "|")
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in _rows(found)]
    if found.gates:
        lines += ["", "| gate | verdict | why |", "|---|---|---|"]
        lines += [f"| {_cell(gate['name'])} | {_mark(gate)} | {_cell(gate['reason'])} |" for gate in found.gates]
    lines += ["", f"{found.reason}", "", f"Approval: {found.approval}"]
    return "\n".join(lines) + "\n"


def _heads(found: Standings) -> list[str]:
    measured = [f"measured {found.metric}"] if any(each.evaluation for each in found.contenders) else []
    return ["#", "model", found.searched, "steps", *measured, "parameters"]


def _rows(found: Standings) -> Iterator[list[str]]:
    everyone = [*found.contenders, *([found.champion] if found.champion else [])]
    wide = len(_heads(found)) > 5
    for each in everyone:
        champion = each is found.champion
        name = f"champion, {each.model.replace('-', ' ')}" if champion else f"trial {each.trial}"
        figures = [number(each.rank), name, number(each.value), number(each.budget)]
        yield [*figures, *([_with_bounds(each, found.metric)] if wide else []), parameters(each.params)]


def _with_bounds(each: Contender, metric: str) -> str:
    if each.error is not None:
        return "could not be measured"
    low, high = each.bounds.get(metric, (None, None))
    return number(each.evaluation.get(metric)) + (f" [{number(low)}, {number(high)}]" if low is not None else "")


def _measured(state: StudyState, key: str | None) -> dict[str, list[dict[str, Any]]]:
    """What was measured under a step key: a row for each seed, by model."""
    found: dict[str, list[dict[str, Any]]] = {}
    for step, row in state.steps.items():
        if key is not None and step.startswith(f"{key}/") and "seed" in row:
            found.setdefault(row["model"], []).append(row)
    return found


def _contender(row: Row, model: str | None, measured: Mapping[str, list[dict[str, Any]]], bounds: Bounds) -> Contender:
    name = model or f"trial-{row.trial}"
    return Contender(
        model=name,
        rank=row.rank,
        trial=row.trial,
        value=row.value,
        budget=row.steps,
        params=row.params,
        evaluation=_means(measured.get(name, [])),
        bounds=dict(bounds.get(name, {})),
    )


def _champion(
    decided: dict[str, Any] | None, measured: Mapping[str, list[dict[str, Any]]], bounds: Bounds
) -> Contender | None:
    held = decided["champion"] if decided else None
    if held is None:
        return None
    name = f"version-{held['version']}"
    rows = measured.get(name, [])
    return Contender(
        model=name,
        rank=None,
        trial=None,
        value=held["value"],
        budget=None,
        params={},
        evaluation=_means(rows),
        bounds=dict(bounds.get(name, {})),
        error=next((row["error"] for row in rows if row["error"]), None),
    )


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row["metrics"])
    return {name: fmean(row["metrics"][name] for row in rows if name in row["metrics"]) for name in names}


def _approval(state: StudyState, key: str | None, decided: dict[str, Any] | None, now: float) -> str:
    said = state.steps.get(f"{key}/approval")
    if said is not None:
        what = "approved" if said["approved"] else "rejected"
        return f"{what} by {said['by']} at {_moment(said['time'])}: {_one_line(said['why'])}"
    if decided is None or decided["expires"] is None:
        asked = state.spec.promotion.approval == "required" and (decided is None or decided["trial"] is not None)
        return "is asked for once the gates have passed" if asked else "not needed"
    late = now >= decided["expires"] or key in state.steps
    return f"{'nobody answered until' if late else 'waits until'} {_moment(decided['expires'])}"


def _moment(time: float) -> str:
    return f"{datetime.fromtimestamp(time, tz=UTC):%Y-%m-%d %H:%M} UTC"


def _mark(gate: Mapping[str, Any]) -> str:
    return "yes" if gate["passed"] else "NO"


def _one_line(text: str) -> str:
    return printable(text)


def _cell(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace("|", "\\|")
