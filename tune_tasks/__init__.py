"""Hyperparameter tuning as pipeline tasks: sample, launch trials, evaluate and prune, promote the best.

Names are loaded when they are first used, so that `import tune_tasks` costs nothing in a DAG file. This module must
not import anything else at its top.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune_tasks.championship import history, rollback
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
    from tune_tasks.loop import tune
    from tune_tasks.registry import ModelArtifact
    from tune_tasks.session import get_checkpoint, get_context, report
    from tune_tasks.spec import StudySpec, load_spec
    from tune_tasks.steps import BatchOutcome, Verdict, evaluate_and_prune, launch_trials, promote_best, sample
    from tune_tasks.studies import Study, open_study
    from tune_tasks.study import Batch, Trial

__version__ = "0.1.0"

_HOMES = {
    "championship": ("history", "rollback"),
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
    "loop": ("tune",),
    "registry": ("ModelArtifact",),
    "session": ("get_checkpoint", "get_context", "report"),
    "spec": ("StudySpec", "load_spec"),
    "steps": ("BatchOutcome", "Verdict", "evaluate_and_prune", "launch_trials", "promote_best", "sample"),
    "studies": ("Study", "open_study"),
    "study": ("Batch", "Trial"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Batch",
    "BatchOutcome",
    "ConfigError",
    "CorruptLog",
    "Fenced",
    "ModelArtifact",
    "NothingToPromote",
    "Study",
    "StudyNotFound",
    "StudySpec",
    "Trial",
    "TuneError",
    "Unavailable",
    "Unreachable",
    "Verdict",
    "evaluate_and_prune",
    "get_checkpoint",
    "get_context",
    "history",
    "launch_trials",
    "load_spec",
    "open_study",
    "promote_best",
    "report",
    "rollback",
    "sample",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
