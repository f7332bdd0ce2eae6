"""A study in a few lines of plain text, for a message: how it stands, its best trial, and what became of its model.

Nothing in it is longer than a line of what a person wrote. This module must not know where the message goes.
"""

from __future__ import annotations

from collections.abc import Iterator

from tune_tasks.study import StudyState
from tune_tasks.views import number, parameters, printable
from tune_tasks.views.promotion import newest


def title(state: StudyState) -> str:
    """One line: the study, how many trials of how many, and its best value."""
    best = state.best
    found = f"{printable(state.spec.metric)} {number(best.value)}" if best else "no value yet"
    stands = "done" if state.done else "not done"
    return f"{state.spec.name}: {found}, {stands} with {len(state.trials)} of {state.spec.budget.trials} trials"


def summary(state: StudyState) -> str:
    """The lines below the title, each with what it tells at its beginning."""
    return "\n".join(f"{name}: {printable(text)}" for name, text in _facts(state))


def _facts(state: StudyState) -> Iterator[tuple[str, str]]:
    best = state.best
    if best is not None:
        step = f" at step {best.best_step}" if best.best_step else ""
        yield "best", f"trial {best.number}{step}, {parameters(best.params)}"
    failed = state.count("failed")
    if failed:
        yield "failed", f"{failed} of {len(state.trials)} trials"
    if state.reason:
        yield "verdict", state.reason
    model = _model(state)
    if model:
        yield "model", model


def _model(state: StudyState) -> str:
    """What became of the model, by the newest promotion."""
    key = newest(state)
    decided = state.steps.get(f"{key}/decision")
    if key in state.steps:
        model = state.steps[key]
        what = f"{model.get('uri')} is the {model.get('alias')}" if model.get("promoted") else "the champion stays"
        return f"{what}: {model.get('reason')}"
    if decided is not None and decided["expires"] is not None:
        return f"trial {decided['trial']} waits for approval: {decided['reason']}"
    return ""
