"""What the tasks tell OpenLineage: of a real DAG run by its listener and a file, and of single steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tune_tasks as tt
from tests.studies import write_study
from tune_tasks_airflow.launch import TuneOperator
from tune_tasks_airflow.lineage import lineage
from tune_tasks_airflow.operators import (
    ASSET_EXTRA,
    DeployOperator,
    PromoteBestOperator,
    SampleOperator,
    StepOperator,
    TrainFinalOperator,
)

pytest.importorskip("airflow.providers.openlineage", reason="apache-airflow-providers-openlineage is not installed")

ROOT = Path(__file__).parents[3]
RUN = "import json, sys; from tests.airflow_home import run; run('tests', 'nightly', json.loads(sys.argv[1]))"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of a schedule's study, and what a run of its DAG told, in an Airflow that writes lineage to a file."""
    folder = tmp_path_factory.mktemp("lineage")
    (folder / "data").mkdir()
    (folder / "data" / "rows.csv").write_text("1,2")
    events = folder / "events.json"
    conf = {"spec": str(write_study(folder)), "data": str(folder / "data")}
    transport = {"type": "file", "log_file_path": str(events), "append": True}
    environment = {**os.environ, "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(conf)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, [json.loads(line) for line in events.read_text().splitlines()]


def of(told: tuple[Path, list[dict[str, Any]]], task: str) -> dict[str, Any]:
    """The event with which a task of the run was complete."""
    (found,) = [
        event for event in told[1] if event["job"]["name"] == f"nightly.{task}" and event["eventType"] == "COMPLETE"
    ]
    return found


def names(datasets: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(dataset["namespace"], dataset["name"]) for dataset in datasets}


def test_the_listener_tells_which_study_a_task_carried_on_and_how_it_stands(told):
    folder, _ = told
    event = of(told, "tune.round_0.evaluate_and_prune")
    (study,) = event["outputs"]
    assert study["namespace"] == "file"
    assert study["name"].startswith(f"{folder}/studies/small-")
    facet = event["run"]["facets"]["tuneTasks_study"]
    assert facet["study"] == study["name"]
    assert (facet["step"], facet["pipeline"], facet["metric"]) == ("evaluate_and_prune", "airflow/nightly", "loss")
    assert facet["trials"] == facet["wanted"] == 9
    assert event["run"]["facets"]["parent"]["job"]["name"] == "nightly"


def test_a_launch_reads_the_data_with_its_version(told):
    folder, _ = told
    (data,) = of(told, "tune.round_0.launch_trials")["inputs"]
    assert (data["namespace"], data["name"]) == ("file", str(folder / "data"))
    assert data["facets"]["version"]["datasetVersion"].startswith("sha256:")


def test_a_promotion_reads_the_study_and_makes_the_model(told):
    folder, _ = told
    event = of(told, "tune.promote_best")
    (study,), (model,) = event["inputs"], event["outputs"]
    assert study["name"].startswith(f"{folder}/studies/small-")
    assert (model["namespace"], model["name"]) == ("file", f"{folder}/studies/_models/small")
    facet = model["facets"]["tuneTasks_model"]
    assert facet["metric"] == "loss"
    assert facet["value"] == tt.open_study(study["name"]).best.value
    assert facet["study"] == study["name"]
    assert model["facets"]["datasetType"]["datasetType"] == "MODEL"
    (place,) = model["facets"]["symlinks"]["identifiers"]
    assert Path(place["name"], "model.json").exists()


def execute(operator: type[StepOperator], **fields: Any) -> Any:
    """Executes an operator as a task of a DAG, and returns what it tells then."""
    task = operator(task_id="task", **fields)
    task.execute({"dag": SimpleNamespace(dag_id="by_hand"), "run_id": "1"})  # type: ignore[typeddict-item]
    return task.get_openlineage_facets_on_complete(None)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    target = {"name": "folder", "url": str(tmp_path / "served")}
    return write_study(tmp_path, deploy={"target": target}, data="week 1")


def test_a_deployment_reads_the_model_that_the_promotion_made(spec, tmp_path):
    execute(TuneOperator, study=spec)
    promoted = execute(PromoteBestOperator, study=spec)
    deployed = execute(DeployOperator, study=spec)
    assert promoted.outputs[0].name in {dataset.name for dataset in deployed.inputs}
    (served,) = deployed.outputs
    assert served.name.startswith(str(tmp_path / "served"))
    assert served.facets["version"].datasetVersion == "1"


def test_a_model_in_a_registry_has_its_version_and_its_name_there(spec):
    model = {**dict.fromkeys(ASSET_EXTRA), "promoted": True, "name": "small", "version": "3", "uri": "models:/small/3"}
    (made,) = lineage("promote_best", tt.open_study(spec), model).outputs
    assert made.facets["version"].datasetVersion == "3"
    (identifier,) = made.facets["symlinks"].identifiers
    assert (identifier.namespace, identifier.name, identifier.type) == ("models:", "small/3", "MODEL")


def test_a_final_training_makes_a_study_from_a_study_and_what_is_no_place_is_no_dataset(spec, tmp_path):
    execute(TuneOperator, study=spec)
    told = execute(TrainFinalOperator, study=spec)
    assert [dataset.name for dataset in told.inputs] == [str(tmp_path / "studies" / "small")]
    assert [dataset.name for dataset in told.outputs] == [str(tmp_path / "studies" / "small-final")]


def test_where_the_champion_stays_there_is_no_new_model(spec):
    execute(TuneOperator, study=spec)
    execute(PromoteBestOperator, study=spec)
    assert execute(PromoteBestOperator, study=spec, run="again").outputs == []


def test_a_task_that_failed_tells_the_study_and_one_that_never_opened_it_nothing(spec):
    task = SampleOperator(task_id="task", study=spec, round="first")
    assert task.get_openlineage_facets_on_complete(None) is None
    with pytest.raises(Exception, match="round: 'first' is not allowed"):
        task.execute({"dag": SimpleNamespace(dag_id="by_hand"), "run_id": "1"})  # type: ignore[typeddict-item]
    told = task.get_openlineage_facets_on_complete(None)
    assert told is not None
    assert told.outputs[0].name.endswith("/studies/small")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("s3://bucket/days/1#sha256:ab", {("s3://bucket", "days/1")}),
        ("s3://user:secret-7@bucket/days?sig=secret-7", {("s3://bucket", "days")}),
        ("file:///srv/data", {("file", "/srv/data")}),
        ("https://host:8080", {("https://host:8080", "/")}),
        ("version 3", set()),
        (None, set()),
    ],
)
def test_places_are_named_by_the_rules_and_without_a_secret(spec, data, expected):
    study = tt.open_study(spec)
    study.state.spec = study.spec.model_copy(update={"data": data})
    told = lineage("launch_trials", study, None)
    assert names([{"namespace": each.namespace, "name": each.name} for each in told.inputs]) == expected
