"""What a projection notes of a trial that it has written, so that the next update knows what is new. Pure."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import orjson

from tune_tasks.study import Trial


class Mark(NamedTuple):
    """How far a trial was written: its steps, when it reported the last of them in milliseconds, and what else shows.

    `params` is a digest of what it was given, `detail` differs where anything else has changed.
    """

    steps: int
    time: int
    attempts: int
    params: str
    detail: str

    def __str__(self) -> str:
        return " ".join(map(str, self))


def mark(trial: Trial) -> Mark:
    """The mark of a trial that is written whole."""
    steps = trial.budget
    time = ms(trial.curves.time(trial.number, steps)) if steps else 0
    params = hashlib.sha256(orjson.dumps(trial.params)).hexdigest()[:12]
    newest = trial.checkpoint
    return Mark(steps, time, trial.attempts, params, f"{trial.state}/{newest[0] if newest else 0}")


def read_mark(text: str | None) -> Mark | None:
    """The mark that a projection holds; None where it holds none that can be read."""
    try:
        steps, time, attempts, params, detail = (text or "").split()
        return Mark(int(steps), int(time), int(attempts), params, detail)
    except ValueError:
        return None


def newer(known: Mark, trial: Trial) -> bool:
    """Tells whether what was written is ahead of us: by another tracker, which has read further in the log."""
    return (known.attempts, known.steps) > (trial.attempts, trial.budget)


def written(known: Mark, trial: Trial, now: Mark) -> int | None:
    """How many reports were written; None where not all of what was written holds any more.

    A trial that lost its worker goes on from a checkpoint, and makes again what it had reported since. One that goes
    on from another's checkpoint may have that one's parameters.
    """
    if known.params != now.params:
        return None
    if known.steps == 0:
        return 0
    kept = known.steps <= trial.budget and ms(trial.curves.time(trial.number, known.steps)) == known.time
    return known.steps if kept else None


def ms(seconds: float) -> int:
    """Milliseconds since the epoch."""
    return round(seconds * 1000)
