"""Retrains the digits model every day: from its data to a champion, and with `deliver.py` on to what is served.

`python flows/retrain.py` runs it once, to the end. `python flows/retrain.py serve` serves two deployments until it is
stopped: `retrain/daily`, at midnight UTC, and `deliver/champion`, which its promotions trigger. It begins with the best
of the run before, and with `promotion.approval: required` a person has to agree. A day whose data is that of the run
before is skipped. What `make retrain` shows is here the parameter `data="drifted"`.
"""

import sys
from datetime import timedelta
from typing import Annotated, Any, Literal

from deliver import EVERY, HOME, HOOKS, PIPELINE, STUDY, TRIGGER, ByPerson, Least, Name, Store, deliver
from prefect import flow, serve
from prefect.client.schemas.objects import State
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron
from prefect.states import Completed
from pydantic import Field

from tune_tasks_prefect import evaluate_and_prune, launch_trials, promote_best, sample
from tune_tasks_prefect.approvals import approved
from tune_tasks_prefect.automations import TAG
from tune_tasks_prefect.form import Overrides
from tune_tasks_prefect.scheduled import is_late, scheduled_for
from tune_tasks_prefect.scheduled import retrain as begin

DAY = timedelta(days=1)


@flow(name="retrain", result_serializer="json", **HOOKS)
def retrain(  # noqa: PLR0913  # each is a field of the form
    *,
    data: Annotated[str, Field(description="in place of the day before: `drifted` is what another camera sees")] = "",
    least_accuracy: Least = 0.8,
    name: Name = "digits-mlp",
    store: Store = f"{HOME}/studies",
    trials: Annotated[int, Field(ge=1, description="configurations to try in all")] = 32,
    approval: Annotated[Literal["none", "required"], Field(description="required: a person has to agree")] = "none",
    wait: ByPerson = "pause",
    target: Annotated[dict[str, Any], Field(description="where the champion goes: a folder, or serve")] = {  # noqa: B006  # as below
        "name": "folder",
        "url": f"{HOME}/deployed",
    },
    deliver_here: Annotated[bool, Field(description="or leave that to the deployment deliver/champion")] = True,
    overrides: Overrides = {},  # noqa: B006  # Prefect shows it as the form's default, and nobody changes it
) -> dict[str, Any] | State[Any]:
    """Begins with what is known; searches in rounds; promotes the best, if it beats the champion; delivers it."""
    if is_late(DAY):  # what was missed is not made up for: only the newest data is of use
        return Completed(name="Skipped", message="a later run of the schedule is due by now")
    spec = {"budget.trials": trials, "promotion.approval": approval, "deploy.target": target}
    begun = begin(
        STUDY,
        # What came until midnight. Of your own data: f"s3://bucket/digits/{scheduled_for() - DAY:%Y-%m-%d}"
        data=data or f"{scheduled_for() - DAY:%Y-%m-%d}",
        overrides={"name": name, "store": store, **spec, **overrides},
        pipeline=PIPELINE,
    )
    if begun["skipped"]:
        return Completed(name="Skipped", message=begun["reason"])
    study, done = begun["study"], False
    while not done:
        batch = sample(study, count=32, pipeline=PIPELINE)
        outcome = launch_trials(study, batch, pipeline=PIPELINE)
        done = evaluate_and_prune(study, outcome, pipeline=PIPELINE)["done"]
    model = approved(promote_best(study, pipeline=PIPELINE), wait=wait, pipeline=PIPELINE)
    if not model["promoted"]:
        return Completed(name="Kept", message=model["reason"])
    if deliver_here:
        return deliver(name=name, store=store, least_accuracy=least_accuracy, wait=wait, overrides=overrides)
    return model


def deployments(**shared: Any) -> list[RunnerDeployment]:
    """`retrain/daily` and `deliver/champion`; `shared` are parameters of both flows, such as `store`."""
    common: dict[str, Any] = {"concurrency_limit": 1, "tags": [TAG]}  # another run waits until the one before is over
    waiting = {**shared, "wait": "suspend"}
    midnight = Cron("0 0 * * *", timezone="UTC")
    return [
        retrain.to_deployment("daily", schedule=midnight, parameters={**waiting, "deliver_here": False}, **common),
        deliver.to_deployment("champion", schedule=Cron(EVERY), triggers=[TRIGGER], parameters=waiting, **common),
    ]


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve(*deployments())
    else:
        retrain()
