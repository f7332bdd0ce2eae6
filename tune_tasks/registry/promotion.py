"""Carries a recorded decision out: the model's folder, its version, model.json, and last the alias.

Everything it does it can do again with the same result, so a promote step that was killed is simply run again. This
module must not decide, and must not write to the log.
"""

from __future__ import annotations

import hashlib
import platform
import tempfile
from pathlib import Path
from typing import Any

import orjson

import tune_tasks
from tune_tasks.events import CheckpointRef, Promoting
from tune_tasks.registry import package, pickles, publish
from tune_tasks.registry.artifact import ModelArtifact
from tune_tasks.registry.champions import Champions
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

    `folder` is where the loader and the objective are found. The alias moves only where the champion still is the one
    that the decision was made against; otherwise the artifact says that nothing was promoted, and who became it.
    Raises `ConfigError`, `CorruptLog`, `Unavailable`.
    """
    model = draft(objects, state, decision)
    if decision.trial is None or decision.step is None:
        return model
    promotion = state.spec.promotion
    checkpoint = _checkpoint(state, decision.trial, decision.step)
    with tempfile.TemporaryDirectory(prefix="tune-tasks-") as scratch:
        local = publish.bring(objects, checkpoint, model, Path(scratch) / package.CHECKPOINT)
        pickles.refuse(local, allowed=promotion.pickle)
        environment = package.environment((state.spec.objective, promotion.loader), folder)
        model = publish.publish_model(objects, model.model_copy(update={"environment": environment}), local, checkpoint)
        if champions.registry is None:
            return _crown(objects, champions, model.model_copy(update={"uri": model.path}), decision)
        loader = promotion.loader if checkpoint is not None else None
        version = champions.registry.register(model, local, loader=loader, near=folder)
    model = model.model_copy(update={"version": version, "uri": f"models:/{model.name}/{version}"})
    return _crown(objects, champions, model, decision)


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


def draft(objects: Objects, state: StudyState, decision: Promoting) -> ModelArtifact:
    """The artifact as far as the log alone tells it: of what was decided, before any of it is carried out."""
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
        evaluation=decision.evaluation,
        bounds=decision.bounds,
        gates=decision.gates,
        approval=_said(state, decision.key),
        champion=decision.champion,
        study=objects.url,
        study_id=state.study,
        position=decision.position,
        spec_digest=hashlib.sha256(record).hexdigest(),
        parent=state.parent,
        code=state.code,
        data=spec.data,
        key=decision.key,
        versions={"python": platform.python_version(), "tune_tasks": tune_tasks.__version__},
        created=decision.time,
    )


def _checkpoint(state: StudyState, trial: int, step: int) -> CheckpointRef | None:
    return dict(state.trials[trial].checkpoints).get(step)


def _said(state: StudyState, key: str) -> dict[str, Any] | None:
    """What a person said of the promotion, without what the artifact says anyway."""
    found = state.steps.get(f"{key}/approval")
    return None if found is None else {name: value for name, value in found.items() if name != "key"}
