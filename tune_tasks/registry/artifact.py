"""The values of a promotion, and its decision: which checkpoint is put forward, and whether it beats the champion.

Pure values and functions of them. This module must not do I/O, and must not know MLflow.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from tune_tasks.errors import NothingToPromote
from tune_tasks.events import FORMAT, CheckpointRef, Gate, Value
from tune_tasks.study import StudyState


class Champion(Value):
    """The version under the alias, as its tags tell; all but `version` and `uri` are None where others wrote it."""

    version: str
    uri: str
    value: float | None
    metric: str | None
    mode: str | None
    trial: int | None
    study: str | None
    path: str | None
    digest: str | None = None


class Candidate(Value):
    """What a study puts forward: a checkpoint, or where its trials save none, parameters alone."""

    trial: int
    step: int
    value: float
    checkpoint: CheckpointRef | None


class ModelArtifact(Value):
    """What a promotion gave: a manifest for the tasks that follow, which is also `model.json` in the model's folder.

    Where `promoted` is false the champion stays, `reason` says why, and `uri` and `path` are None. Where it is
    `pending`, it stays until someone agrees.
    """

    format: int = FORMAT
    promoted: bool
    pending: bool = Field(default=False, description="it passed its gates and waits for approval")
    reason: str
    name: str = Field(description="name in the registry")
    alias: str
    version: str | None = Field(default=None, description="version in the registry; None without one")
    uri: str | None = Field(default=None, description="models:/name/version, or without a registry the path")
    path: str | None = Field(default=None, description="URL of the model's folder; its files are below data/")
    digest: str | None = Field(default=None, description="SHA-256 of the folder's manifest.json, which has the files'")
    trial: int | None = None
    step: int | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict, description="what the trial reported at that step")
    metric: str
    mode: Literal["min", "max"]
    value: float | None = None
    evaluation: dict[str, float] = Field(
        default_factory=dict, description="what promotion.evaluate measured, the mean of its repeats, and size in bytes"
    )
    bounds: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="between what each of these lies, at promotion.confidence"
    )
    gates: tuple[Gate, ...] = Field(default=(), description="what it had to pass, in figures")
    approval: dict[str, Any] | None = Field(default=None, description="who agreed or refused: by, why, approved, time")
    champion: dict[str, Any] | None = Field(default=None, description="the champion that it was compared with")
    study: str = Field(description="URL of the study")
    study_id: str
    position: int = Field(description="the log's last segment when this was decided")
    spec_digest: str = Field(description="SHA-256 of the recorded spec")
    parent: str | None = Field(default=None, description="URL of the study whose winner this one trained again")
    code: str | None = Field(default=None, description="the version of the code, as git tells it; -dirty where changed")
    data: str | None = Field(default=None, description="what it was trained on, as the spec says")
    environment: dict[str, Any] = Field(
        default_factory=dict, description="python, platform, and packages that loader and objective import, by name"
    )
    key: str = Field(description="the step key of the promotion")
    versions: dict[str, str] = Field(default_factory=dict, description="of Python and of the packages involved")
    created: float = Field(description="when it was decided, in seconds since the epoch")

    def to_json(self) -> bytes:
        """The artifact as JSON, as it is in model.json."""
        return self.model_dump_json(indent=2).encode() + b"\n"


def candidate(state: StudyState) -> Candidate:
    """Picks the checkpoint with the best value; the best trial alone where no trial saved any.

    The value is the one reported with that checkpoint, not a better one of a step that was not saved.
    Raises `NothingToPromote` where no trial has a value.
    """
    return candidates(state, 1)[0]


def candidates(state: StudyState, count: int) -> list[Candidate]:
    """Picks the best checkpoint of each of the `count` best trials, the best first; as `candidate` does."""
    best: dict[int, Candidate] = {}
    for trial in state.ranked():
        curve = state.curve(trial.number)
        for step, reference in trial.checkpoints:
            if step <= len(curve) and math.isfinite(curve[step - 1]):
                found = Candidate(trial=trial.number, step=step, value=curve[step - 1], checkpoint=reference)
                held = best.get(trial.number, found)
                best[trial.number] = min(held, found, key=lambda item: (state.sign * item.value, item.step))
    if best:
        return sorted(best.values(), key=lambda item: (state.sign * item.value, item.trial))[:count]
    return [_without_checkpoint(state)]


def _without_checkpoint(state: StudyState) -> Candidate:
    best = state.best
    if best is None or best.value is None or best.best_step is None:
        raise NothingToPromote(
            f"{state.spec.name}: none of its {len(state.trials)} trials has a value of {state.spec.metric}, "
            f"{state.count('failed')} failed; look at their errors first"
        )
    return Candidate(trial=best.number, step=best.best_step, value=best.value, checkpoint=None)


def decide_promotion(
    value: float, champion: Champion | None, *, metric: str, mode: str, min_improvement: float
) -> tuple[bool, str]:
    """Decides whether a value beats the champion's: strictly, and by at least `min_improvement`. Says why, in figures.

    A champion that was measured by something else, or written by someone else, stays: nothing can be said of it.
    """
    if champion is None:
        return True, f"{metric} {value:.6g} is the first: there is no champion yet"
    held = f"(version {champion.version})"
    if champion.value is None or champion.metric != metric or champion.mode != mode:
        measured = f"{champion.metric} ({champion.mode})" if champion.metric else "nothing that tune_tasks wrote"
        return False, (
            f"the champion {held} is measured by {measured} and not by {metric} ({mode}), so they cannot be compared; "
            "remove the alias from it, or promote under another alias"
        )
    gain = (champion.value - value) if mode == "min" else (value - champion.value)
    against = f"the champion's {champion.value:.6g} {held}"
    if gain <= 0:
        return False, f"{metric} {value:.6g} does not beat {against}: {_short_of(gain)}"
    if gain < min_improvement and not math.isclose(gain, min_improvement, rel_tol=1e-9):
        return False, f"{metric} {value:.6g} beats {against} by {gain:.6g} only, at least {min_improvement:g} is asked"
    return True, f"{metric} {value:.6g} beats {against} by {gain:.6g}, at least {min_improvement:g} is asked"


def _short_of(gain: float) -> str:
    return "it is the same" if gain == 0 else f"it is worse by {-gain:.6g}"
