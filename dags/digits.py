"""Tunes the digits example in rounds, promotes the best model, and uses it in the task that follows.

The parameters replace what `study.yaml` says; a run's configuration may name any other of its keys too, for example
`{"execution.runner": "inline"}`. Another `name` begins a new study.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from airflow.sdk import Param, dag, task

from tune_tasks_airflow.rounds import tune_rounds

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "digits"


@dag(
    schedule=None,
    max_active_runs=1,  # two runs at once would take the study away from each other
    default_args={"retries": 2},
    params={
        "name": Param("digits-mlp", description="the study", type="string"),
        "store": Param(
            f"{os.environ.get('AIRFLOW_HOME', '~/airflow')}/studies",
            description="where studies live: a folder that all workers share, or a URL such as s3://bucket/studies",
            type="string",
        ),
        "budget.trials": Param(64, description="configurations to try in all", type="integer", minimum=1),
    },
    tags=["tune_tasks"],
    doc_md=__doc__,
)
def digits() -> None:
    """Sample, launch, evaluate; again; promote; use."""
    tuned = tune_rounds(
        EXAMPLE / "study.yaml",
        rounds=10,
        count=32,
        overrides="{{ params | tojson }}",
        amend=True,  # a run with more trials goes on with the study
    )
    use_model(tuned.output)


@task
def use_model(model: dict[str, Any]) -> dict[str, Any]:
    """Reads the manifest of the champion, loads it, and measures it on images that no trial has seen."""
    import fsspec

    sys.path.insert(0, str(EXAMPLE))
    from network import load
    from objective import data

    files, folder = fsspec.url_to_fs(model["path"] or model["champion"]["path"])
    manifest = json.loads(files.cat(f"{folder}/model.json"))
    with tempfile.TemporaryDirectory() as local:
        files.get(f"{folder}/data/", local, recursive=True)
        network = load(Path(local))
    images, labels = data()["test"]
    accuracy = float((network.predict(images) == labels).mean())
    return {"trial": manifest["trial"], "version": manifest["version"], "test_accuracy": accuracy}


pipeline = digits()

if __name__ == "__main__":
    pipeline.test()
