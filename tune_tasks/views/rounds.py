"""The decisions of each round: what it tried, which trials advanced, which were pruned, and why.

As rows, and as a table of the page that `html` draws. This module must not read more than the state it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from tune_tasks.study import StudyState
from tune_tasks.views import STATES, number

SHOWN = 200
"""As many rounds are on the page, the newest."""
_NAMED = 12
"""As many trials are named in a cell."""


@dataclass(frozen=True, slots=True)
class Round:
    """One batch; `why` is what its evaluate step decided, None before there is a decision."""

    batch: str
    trials: tuple[int, ...]
    states: dict[str, int]
    advances: tuple[int, ...]
    prunes: tuple[int, ...]
    value: float | None
    why: str | None


def rounds(state: StudyState) -> list[Round]:
    """Every round, in the order in which they were planned; a streaming one was made longer again and again."""
    planned: dict[str, dict[int, None]] = {batch: {} for batch in state.batches}
    judged: dict[str, list[dict[str, Any]]] = {batch: [] for batch in state.batches}
    for row in state.steps.values():
        if "exhausted" in row:
            planned[row["id"]] |= dict.fromkeys(trial for trial, _ in row["trials"])
        elif "advances" in row:
            judged.setdefault(row["batch"], []).append(row)
    return [_round(state, batch, tuple(planned[batch]), judged[batch]) for batch in state.batches]


def as_html(found: Sequence[Round], metric: str) -> str:
    """A section with a row for each round, the newest first; empty where there is none."""
    if not found:
        return ""
    heads = ("round", "trials", "after its launch", "advance", "pruned", f"best {metric}", "why")
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(_row(each) for each in reversed(found[-SHOWN:]))
    more = f"<p>and {len(found) - SHOWN} earlier rounds</p>" if len(found) > SHOWN else ""
    return (
        '<h2>What each round decided</h2><div class="scroll"><table class="rounds">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}"
    )


def _round(state: StudyState, batch: str, trials: tuple[int, ...], judged: Sequence[dict[str, Any]]) -> Round:
    launched = state.steps.get(f"{batch}/launch", {})
    return Round(
        batch=batch,
        trials=trials,
        states=launched.get("states", {}),
        advances=tuple(trial for row in judged for trial in row["advances"]),
        prunes=tuple(trial for row in judged for trial in row["prunes"]),
        value=judged[-1]["value"] if judged else launched.get("value"),
        why=judged[-1]["reason"] if judged else None,
    )


def _row(each: Round) -> str:
    launched = ", ".join(f"{each.states[name]} {name}" for name in STATES if each.states.get(name))
    why = "not decided yet" if each.why is None else each.why
    lists = (each.trials, each.advances, each.prunes)
    trials, advances, prunes = (_named(trials) for trials in lists)
    cells = (each.batch, trials, launched or "-", advances, prunes, number(each.value), why)
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _named(trials: Sequence[int]) -> str:
    """How many, and which."""
    if not trials:
        return "-"
    names = ", ".join(str(trial) for trial in trials[:_NAMED])
    return f"{len(trials)}: {names}{', ...' if len(trials) > _NAMED else ''}"
