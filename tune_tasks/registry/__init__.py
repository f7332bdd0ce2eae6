"""From the best trial to a champion: what is decided, the model's folder, and its version in the MLflow registry.

`candidates`, `gates` and `decide_promotion` decide and are pure; `evaluate` measures a model; `carry_out` does what was
decided, again and again with one result. The alias moves last, so whatever is killed, it names the old champion or a
complete new one. This package must not write to the log: the promote step records.
"""

from __future__ import annotations

from tune_tasks.registry.artifact import Candidate, Champion, ModelArtifact, candidate, candidates, decide_promotion
from tune_tasks.registry.champions import FOLDER, Champions, Reign
from tune_tasks.registry.evaluation import Evaluation
from tune_tasks.registry.place import default_uri
from tune_tasks.registry.promotion import carry_out, draft
from tune_tasks.registry.publish import publish_model
from tune_tasks.registry.versions import Registry

__all__ = [
    "FOLDER",
    "Candidate",
    "Champion",
    "Champions",
    "Evaluation",
    "ModelArtifact",
    "Registry",
    "Reign",
    "candidate",
    "candidates",
    "carry_out",
    "decide_promotion",
    "default_uri",
    "draft",
    "publish_model",
]
