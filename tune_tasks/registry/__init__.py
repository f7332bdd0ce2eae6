"""From the best trial to a champion: what is decided, the model's folder, and its version in the MLflow registry.

`candidate` and `decide_promotion` decide and are pure; `carry_out` does what was decided, again and again with one
result. The alias moves last, so whatever is killed, it names the old champion or a complete new one. This package
must not write to the log: the promote step records.
"""

from __future__ import annotations

from tune_tasks.registry.artifact import Candidate, Champion, ModelArtifact, candidate, decide_promotion
from tune_tasks.registry.champions import FOLDER, Champions, Reign
from tune_tasks.registry.place import default_uri
from tune_tasks.registry.promotion import carry_out
from tune_tasks.registry.publish import publish_model
from tune_tasks.registry.versions import Registry

__all__ = [
    "FOLDER",
    "Candidate",
    "Champion",
    "Champions",
    "ModelArtifact",
    "Registry",
    "Reign",
    "candidate",
    "carry_out",
    "decide_promotion",
    "default_uri",
    "publish_model",
]
