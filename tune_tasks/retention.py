"""Which checkpoints of a study nothing needs any more.

Pure, as `decide` is: the log records what is discarded before a file is deleted. This module must not delete anything.
"""

from __future__ import annotations

import math

from tune_tasks.events import Discarded
from tune_tasks.study import OVER, Saved, StudyState


def discard(state: StudyState, *, time: float) -> Discarded | None:
    """Picks the checkpoints to discard; None where there is none.

    Kept are the newest `checkpoints.keep_last` of each trial that may go on, the `checkpoints.keep_best` best of the
    study, and whatever a promotion named. None for one of the two keeps all of those.
    """
    saved = list(state.saved())
    kept = {*_newest(state, saved), *_best(state, saved), *_promoted(state)}
    gone = [item for item in saved if (item.trial, item.step) not in kept]
    if not gone:
        return None
    named = {item.reference.key for item in saved if (item.trial, item.step) in kept}
    return Discarded(
        trial=[item.trial for item in gone],
        step=[item.step for item in gone],
        keys=tuple(dict.fromkeys(item.reference.key for item in gone if item.reference.key not in named)),
        time=time,
    )


def _newest(state: StudyState, saved: list[Saved]) -> set[tuple[int, int]]:
    steps: dict[int, list[int]] = {}
    for item in saved:
        if state.trials[item.trial].state not in OVER:
            steps.setdefault(item.trial, []).append(item.step)
    last = state.spec.checkpoints.keep_last
    return {(trial, step) for trial, own in steps.items() for step in (own if last is None else sorted(own)[-last:])}


def _best(state: StudyState, saved: list[Saved]) -> list[tuple[int, int]]:
    """By the value reported with the checkpoint, as a promotion picks its candidate."""
    valued = sorted(
        (state.sign * value, item.trial, item.step)
        for item in saved
        if state.trials[item.trial].state != "failed" and math.isfinite(value := state.reported(item.trial, item.step))
    )
    return [(trial, step) for _, trial, step in valued[: state.spec.checkpoints.keep_best]]


def _promoted(state: StudyState) -> list[tuple[int, int]]:
    decisions = (result for key, result in state.steps.items() if key.endswith("/promote/decision"))
    return [(decision["trial"], decision["step"]) for decision in decisions if decision["trial"] is not None]
