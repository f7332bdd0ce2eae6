"""Retrains the digits model every day, from its data to what is served, and goes back where the new model falls short.

It tunes, beginning with the best of the run before, promotes the winner (with `promotion.approval: required`, when a
person agrees), trains it once more on all the data, deploys the champion to a folder, and measures what lies there. A
day whose data is that of the run before is skipped. What `make retrain` shows is here the parameter `data: drifted`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import AssetAlias, Param, dag, task
from airflow.timetables.interval import CronDataIntervalTimetable

from tune_tasks_airflow.approvals import approval
from tune_tasks_airflow.operators import DeployOperator, PromoteBestOperator, TrainFinalOperator
from tune_tasks_airflow.rounds import tune_rounds
from tune_tasks_airflow.scheduled import RetrainOperator

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "digits"
HOME = os.environ.get("AIRFLOW_HOME", "~/airflow")

# What came in the data interval. Of your own data: s3://bucket/digits/{{ data_interval_start | ds }}
DATA = "{{ params.data or (dag_run.data_interval_start or dag_run.run_after) | ds }}"
# All other parameters are keys of the spec, and the configuration of a run may name any further one.
OVERRIDES = "{{ dict(params.items() | rejectattr(0, 'in', ['data', 'least_accuracy'])) | tojson }}"


@dag(
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 11, 1, tzinfo=UTC),
    # Days that were missed are not made up for: only the newest data is of use. Of runs that overlap all the same, by
    # hand or in a backfill, never two promote: the engine keeps a ledger of the series, and as soon as a run that began
    # later has promoted, an earlier one that is still at work does not.
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,  # what costs this much begins when someone switches it on
    default_args={"retries": 2},
    params={
        "data": Param("", description="in place of the day: `drifted` is what another camera sees", type="string"),
        "least_accuracy": Param(0.8, description="of what is served, or it goes again", type="number"),
        "name": Param("digits-mlp", description="the series, and the model", type="string"),
        "store": Param(f"{HOME}/studies", description="a folder of all workers, or a URL", type="string"),
        "budget.trials": Param(32, description="configurations to try in all", type="integer", minimum=1),
        "promotion.approval": Param("none", description="required: a person has to agree", enum=["none", "required"]),
        "deploy.target": Param({"name": "folder", "url": f"{HOME}/deployed"}, description="or serve", type="object"),
    },
    tags=["tune_tasks"],
    doc_md=__doc__,
)
def retrain() -> None:
    """Begin; tune; promote; train on all data; promote that; deploy; check."""
    begun = RetrainOperator(task_id="begin", study=EXAMPLE / "study.yaml", data=DATA, overrides=OVERRIDES)
    study = begun.output["study"]
    tuned = tune_rounds(study, rounds=6, count=32)
    chosen = approval(study, model=tuned.output, group_id="agree")
    final = TrainFinalOperator(task_id="train_final", study=study, multiple_outputs=True)
    trained = final.output["final"]
    proposed = PromoteBestOperator(task_id="promote_final", study=trained)
    champion = approval(
        trained, model=proposed.output, group_id="agree_final", outlets=[AssetAlias("digits-mlp-champion")]
    )
    deployed = DeployOperator(task_id="deploy", study=study)
    is_new(chosen.output) >> final
    champion >> deployed
    check(deployed.output, study)


@task.short_circuit
def is_new(model: dict[str, Any]) -> bool:
    """Ends the run well where the champion stays."""
    return bool(model["promoted"])


@task
def check(deployed: dict[str, Any], study: str, params: dict[str, Any] | None = None) -> dict[str, float]:
    """Measures what is deployed on images that no trial has seen; where it falls short, what was there comes back."""
    from airflow.sdk.exceptions import AirflowFailException

    import tune_tasks as tt

    least = float((params or {})["least_accuracy"])
    if not deployed["deployed"]:
        raise AirflowFailException(deployed["reason"])  # the deploy step has gone back itself
    opened = tt.open_study(study)
    accuracy = accuracy_of(deployed["url"], opened.spec.data)
    if accuracy >= least:
        return {"accuracy": accuracy}
    why = f"version {deployed['version']} reads {accuracy:.1%} of the digits, {least:.1%} are asked for"
    earlier = deployed["previous"]
    if earlier is None:
        raise AirflowFailException(f"{why}; nothing was deployed before it, so it stays")
    if tt.history(opened)[-1].version == deployed["version"]:  # a second try must not go back once more
        tt.rollback(opened, earlier, by="the DAG retrain", why=why)
    tt.deploy(opened, run="rollback")
    raise AirflowFailException(f"{why}; the champion is version {earlier} again")


def accuracy_of(url: str, data_version: str | None) -> float:
    """The share of held-out images of a version of the data that the deployed model reads."""
    import fsspec

    sys.path.insert(0, str(EXAMPLE))
    from network import load
    from objective import data

    files, folder = fsspec.url_to_fs(url)
    pointer = json.loads(files.cat(f"{folder}/current.json"))
    with tempfile.TemporaryDirectory() as local:
        files.get(f"{fsspec.url_to_fs(pointer['path'])[1]}/data/", local, recursive=True)
        network = load(Path(local))
    images, labels = data(data_version)["test"]
    return float((network.predict(images) == labels).mean())


pipeline = retrain()

if __name__ == "__main__":
    pipeline.test()
