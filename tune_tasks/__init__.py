"""Hyperparameter tuning as pipeline tasks: sample, launch trials, evaluate and prune, promote the best.

Names are loaded when they are first used, so that `import tune_tasks` costs nothing in a DAG file. This module must
not import anything else at its top.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune_tasks.deployment.step import Deployment, deploy, undeploy
    from tune_tasks.errors import (
        ConfigError,
        CorruptLog,
        Fenced,
        NothingToPromote,
        StudyNotFound,
        TuneError,
        Unavailable,
        Unreachable,
    )
    from tune_tasks.extension import extend
    from tune_tasks.final import train_final
    from tune_tasks.fingerprints import fingerprint
    from tune_tasks.loop import tune
    from tune_tasks.promotion.approval import approve, reject
    from tune_tasks.promotion.championship import history, rollback
    from tune_tasks.registry import Evaluation, ModelArtifact
    from tune_tasks.retraining import Retraining, retrain
    from tune_tasks.session import get_checkpoint, get_context, report
    from tune_tasks.spec import StudySpec, load_spec
    from tune_tasks.steps import BatchOutcome, Verdict, evaluate_and_prune, launch_trials, promote_best, sample
    from tune_tasks.studies import Study, open_study
    from tune_tasks.study import Batch, Trial
    from tune_tasks.tracking.following import track

__version__ = "0.1.0"

_HOMES = {
    "deployment.step": ("Deployment", "deploy", "undeploy"),
    "errors": (
        "ConfigError",
        "CorruptLog",
        "Fenced",
        "NothingToPromote",
        "StudyNotFound",
        "TuneError",
        "Unavailable",
        "Unreachable",
    ),
    "extension": ("extend",),
    "final": ("train_final",),
    "fingerprints": ("fingerprint",),
    "loop": ("tune",),
    "promotion.approval": ("approve", "reject"),
    "promotion.championship": ("history", "rollback"),
    "registry": ("Evaluation", "ModelArtifact"),
    "retraining": ("Retraining", "retrain"),
    "session": ("get_checkpoint", "get_context", "report"),
    "spec": ("StudySpec", "load_spec"),
    "steps": ("BatchOutcome", "Verdict", "evaluate_and_prune", "launch_trials", "promote_best", "sample"),
    "studies": ("Study", "open_study"),
    "study": ("Batch", "Trial"),
    "tracking.following": ("track",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Batch",
    "BatchOutcome",
    "ConfigError",
    "CorruptLog",
    "Deployment",
    "Evaluation",
    "Fenced",
    "ModelArtifact",
    "NothingToPromote",
    "Retraining",
    "Study",
    "StudyNotFound",
    "StudySpec",
    "Trial",
    "TuneError",
    "Unavailable",
    "Unreachable",
    "Verdict",
    "approve",
    "deploy",
    "evaluate_and_prune",
    "extend",
    "fingerprint",
    "get_checkpoint",
    "get_context",
    "history",
    "launch_trials",
    "load_spec",
    "open_study",
    "promote_best",
    "reject",
    "report",
    "retrain",
    "rollback",
    "sample",
    "track",
    "train_final",
    "tune",
    "undeploy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
