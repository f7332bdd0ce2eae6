"""Brings the champion to where it is served: trained on all data, deployed, measured, and taken back if it falls short.

Its deployment `deliver/champion` is triggered by the event of a promotion, and looks every hour as well, because an
event can be lost. Either way it goes by who the champion is, and by what is there already: nothing is done twice.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.events import DeploymentEventTrigger
from prefect.settings import PREFECT_HOME
from prefect.states import Completed
from pydantic import Field

from tune_tasks_prefect import deploy, promote_best, stop_jobs, tell_jobs, train_final
from tune_tasks_prefect.announcing import PROMOTED, resource_of
from tune_tasks_prefect.approvals import Wait, approved, resume_answered
from tune_tasks_prefect.form import Overrides
from tune_tasks_prefect.scheduled import champion

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "digits"
STUDY = EXAMPLE / "study.yaml"
MODEL = "digits-mlp"
HOME = str(PREFECT_HOME.value())
PIPELINE = "prefect/digits"
"""The two flows carry the studies on together, so they go by one name."""

HOOKS: dict[str, Any] = {"on_cancellation": [stop_jobs], "on_crashed": [tell_jobs], "on_failure": [tell_jobs]}
"""Whoever cancels a run stops its Ray job too, where the spec says `execution: {runner: job}`."""

Name = Annotated[str, Field(description="the series of studies")]
Store = Annotated[str, Field(description="where studies live: a folder that all workers share, or a URL")]
Least = Annotated[float, Field(ge=0, le=1, description="accuracy of what is served, or it goes again")]
ByPerson = Annotated[Wait, Field(description="how a flow run waits for a person; suspend needs a deployment")]

TRIGGER = DeploymentEventTrigger(
    name="a model of digits-mlp was promoted",
    expect={PROMOTED},
    match={"prefect.resource.id": resource_of(MODEL), "tune-tasks.trained": "search"},
)
EVERY = "0 * * * *"
"""When a promotion is seen at the latest whose event was lost: every hour."""


@flow(name="deliver", result_serializer="json", **HOOKS)
def deliver(
    *,
    name: Name = "digits-mlp",
    store: Store = f"{HOME}/studies",
    least_accuracy: Least = 0.8,
    wait: ByPerson = "pause",
    overrides: Overrides = {},  # noqa: B006  # Prefect shows it as the form's default, and nobody changes it
) -> dict[str, float] | State[Any]:
    """Trains the champion on all the data, promotes and deploys that, and measures what lies there."""
    resume_answered()  # flow runs that are suspended until someone agrees, which can be said in a shell as well
    held = champion(STUDY, overrides={"name": name, "store": store, **overrides})
    study = held["study"]
    if study is None:
        return Completed(name="Skipped", message=f"{held['model']} has no champion from a study yet")
    if held["trained"] == "search":
        final = train_final(study, pipeline=PIPELINE)["final"]
        model = approved(promote_best(final, pipeline=PIPELINE), wait=wait, pipeline=PIPELINE)
        study = final if model["promoted"] else study
    return check(deploy(study, pipeline=PIPELINE), study, least_accuracy)


@task
def check(deployed: dict[str, Any], study: str, least: float) -> dict[str, float]:
    """Measures what is deployed on images that no trial has seen; where it falls short, what was there comes back."""
    import tune_tasks as tt

    if not deployed["deployed"]:
        raise RuntimeError(deployed["reason"])  # the deploy step has gone back itself
    opened = tt.open_study(study)
    accuracy = accuracy_of(deployed["url"], opened.spec.data)
    get_run_logger().info("Version %s reads %.1f%% of the digits", deployed["version"], 100 * accuracy)
    if accuracy >= least:
        return {"accuracy": accuracy}
    why = f"version {deployed['version']} reads {accuracy:.1%} of the digits, {least:.1%} are asked for"
    earlier = before(opened, deployed["version"])
    if earlier is None:
        raise RuntimeError(f"{why}; nothing was deployed before it, so it stays")
    if tt.history(opened)[-1].version == deployed["version"]:  # a second try must not go back once more
        tt.rollback(opened, earlier, by="the flow deliver", why=why)
    tt.deploy(opened, run="rollback")
    raise RuntimeError(f"{why}; the champion is version {earlier} again")


def before(study: Any, version: str) -> str | None:
    """The version that was deployed when this one came, also where that was in a flow run that was killed then."""
    steps = study.state.steps.items()
    came = [step for key, step in steps if "/deploy/" in key and step.get("changed") and step["version"] == version]
    return came[-1]["previous"] if came else None


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


if __name__ == "__main__":
    deliver()
