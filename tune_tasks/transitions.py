"""What one event makes of one trial: from a trial and what happened to the trial after it.

Pure functions, and of one trial alone: what an event means for the study is in `study.py`. This module must not read a
clock or change what it is given.
"""

from __future__ import annotations

from typing import assert_never

from tune_tasks.events import Assignment, Ended
from tune_tasks.trial import OVER, Trial, TrialStatus


def assigned(trial: Trial, assignment: Assignment, batch: str) -> Trial:
    """A trial that is put into a batch. Raises `ValueError` for one that is over, or runs."""
    if trial.state in OVER or trial.state == "running":
        raise ValueError(f"trial {trial.number} is {trial.state} and cannot be assigned")
    return trial.changed(
        state="queued",
        target=assignment.budget,
        last=assignment.last,
        batch=batch,
        advance=None,
        why=assignment.reason,
    )


def stood(trial: Trial, time: float) -> Trial:
    """A trial whose attempt is over, with the time that it took."""
    lasted = max(0.0, time - trial.began) if trial.began is not None else 0.0
    return trial.changed(seconds=trial.seconds + lasted, began=None)


def ended(trial: Trial, event: Ended) -> Trial:
    """A running trial after the end of its attempt. Raises `ValueError` where nothing told it to stop."""
    match event.outcome:
        case "reached":
            why = f"ran all {trial.budget} steps" if trial.last else trial.why
            return trial.changed(state="completed" if trial.last else "paused", why=why)
        case "returned":
            return trial.changed(state="completed", why=f"its objective returned after step {trial.budget}")
        case "carried":
            return trial.changed(state="queued", why="paused at the end of a step")
        case "moved":
            return trial.changed(state="queued", why="its node was about to go away")
        case "failed":
            return trial.changed(state=_again(event), failures=trial.failures + 1, error=event.error)
        case "lost":
            return trial.changed(state=_again(event), losses=trial.losses + 1, error=event.error)
        case "stopped":
            raise ValueError(f"trial {trial.number} stopped without a decision to prune it")
        case _:
            assert_never(event.outcome)


def discarded(trial: Trial, step: int) -> Trial:
    """A trial without its checkpoint of this step. Raises `ValueError` where there is none, or it is still needed."""
    kept = tuple(item for item in trial.checkpoints if item[0] != step)
    if len(kept) == len(trial.checkpoints):
        raise ValueError(f"trial {trial.number} has no checkpoint of step {step} to discard")
    if trial.state not in OVER and (not kept or step > kept[-1][0]):
        raise ValueError(f"the checkpoint of step {step} is the newest of trial {trial.number}, which is {trial.state}")
    return trial.changed(checkpoints=kept)


def reopened(trial: Trial) -> Trial:
    """A trial whose last budget is not the largest any more: what it reaches, or has reached, is to be judged."""
    match trial.state:
        case "completed":
            return trial.changed(state="paused", last=False, why="may go on: the study was extended")
        case "queued" | "running":
            return trial.changed(last=False)
        case "paused" if trial.advance is not None:
            return trial.changed(advance=trial.advance.model_copy(update={"last": False}))
        case _:
            raise ValueError(f"trial {trial.number} is {trial.state} and cannot be reopened")


def _again(event: Ended) -> TrialStatus:
    return "queued" if event.retry else "failed"
