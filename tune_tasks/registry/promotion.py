"""Carries a recorded decision out: the model's folder, its version, model.json, and last the alias.

Everything it does it can do again with the same result, so a promote step that was killed is simply run again. This
module must not decide, and must not write to the log.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import orjson

import tune_tasks
from tune_tasks.errors import ConfigError
from tune_tasks.events import CheckpointRef, Promoting
from tune_tasks.registry import package, publish
from tune_tasks.registry.artifact import ModelArtifact
from tune_tasks.registry.champions import Champions
from tune_tasks.spec import resolve
from tune_tasks.store import Objects
from tune_tasks.study import StudyState


def carry_out(
    objects: Objects,
    state: StudyState,
    decision: Promoting,
    champions: Champions,
    *,
    folder: str | None = None,
) -> ModelArtifact:
    """Publishes what was decided and returns the artifact; called again with the same decision, it gives the same.

    `folder` is where the loader and `evaluate` are found. The alias moves only where the champion still is the one that
    the decision was made against; otherwise the artifact says that nothing was promoted, and who became the champion.
    Raises `ConfigError`, `CorruptLog`, `Unavailable`.
    """
    model = _draft(objects, state, decision)
    if decision.trial is None or decision.step is None:
        return model
    promotion = state.spec.promotion
    checkpoint = _checkpoint(state, decision.trial, decision.step)
    with tempfile.TemporaryDirectory(prefix="tune-tasks-") as scratch:
        local = publish.bring(objects, checkpoint, model, Path(scratch) / package.CHECKPOINT)
        model = publish.publish_model(objects, model, local, checkpoint)
        if promotion.evaluate and checkpoint is not None:
            measured = evaluate(promotion.evaluate, folder, local)
            model = model.model_copy(update={"evaluation": measured})
        if champions.registry is None:
            return _crown(objects, champions, model.model_copy(update={"uri": model.path}), decision)
        loader = promotion.loader if checkpoint is not None else None
        version = champions.registry.register(model, local, loader=loader, near=folder)
    model = model.model_copy(update={"version": version, "uri": f"models:/{model.name}/{version}"})
    return _crown(objects, champions, model, decision)


def evaluate(target: str, near: str | None, folder: Path) -> dict[str, float]:
    """Measures a checkpoint with the spec's `evaluate`, on a copy that it may change; what it prints goes to stderr.

    Raises `ConfigError` where it fails, or returns anything but finite numbers by name.
    """
    measure = resolve(target, "promotion.evaluate", near)
    with tempfile.TemporaryDirectory(prefix="tune-tasks-") as scratch, contextlib.redirect_stdout(sys.stderr):
        copy = shutil.copytree(folder, Path(scratch) / folder.name)
        try:
            found = measure(copy)
        except Exception as error:
            raise ConfigError(f"promotion.evaluate: {target!r} raised {type(error).__name__}: {error}") from error
    if not isinstance(found, Mapping) or not found:
        raise ConfigError(f"promotion.evaluate: {target!r} returned {found!r}, must be numbers by name")
    return {str(name): _number(target, name, value) for name, value in found.items()}


def _number(target: str, name: object, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]  # what has no float raises
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"promotion.evaluate: {target!r} returned {value!r} for {name!r}, must be a finite number")
    return number


def _crown(objects: Objects, champions: Champions, model: ModelArtifact, decision: Promoting) -> ModelArtifact:
    """Writes model.json and makes the model the champion, if nobody else became it since the decision."""
    other = champions.objection(model, after=decision.ledger)
    if other is None:
        written = publish.write_model(objects, model)
        other = champions.crown(model, after=decision.ledger)
        if other is None:
            return written
    reason = f"{other}, while this was compared with what was there before; promote again under another run"
    return model.model_copy(update={"promoted": False, "reason": reason, "uri": None, "path": None})


def _draft(objects: Objects, state: StudyState, decision: Promoting) -> ModelArtifact:
    """The artifact as far as the log alone tells it."""
    spec, number = state.spec, decision.trial
    trial = None if number is None else state.trials[number]
    reports = trial.reports if trial else []
    record = orjson.dumps(spec.record(), option=orjson.OPT_SORT_KEYS)
    return ModelArtifact(
        promoted=number is not None,
        reason=decision.reason,
        name=spec.model,
        alias=spec.promotion.alias,
        trial=number,
        step=decision.step,
        params=trial.params if trial else {},
        metrics=reports[decision.step - 1].metrics if reports and decision.step else {},
        metric=spec.metric,
        mode=spec.mode,
        value=decision.value,
        champion=decision.champion,
        study=objects.url,
        study_id=state.study,
        position=decision.position,
        spec_digest=hashlib.sha256(record).hexdigest(),
        key=decision.key,
        versions={"python": platform.python_version(), "tune_tasks": tune_tasks.__version__},
        created=decision.time,
    )


def _checkpoint(state: StudyState, trial: int, step: int) -> CheckpointRef | None:
    return dict(state.trials[trial].checkpoints).get(step)
