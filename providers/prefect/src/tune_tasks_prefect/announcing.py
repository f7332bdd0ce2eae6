"""A promotion as Prefect's other flows hear of it: a materialised asset with metadata, and an event that triggers them.

Both may be told twice, after a retry say, and either can be lost on its way: the event's id follows from the promotion,
and whoever acts on it asks the registry first. This module must not fail a step, or tell more than the manifest does.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from prefect import get_run_logger
from prefect.assets import Asset, AssetProperties, add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event

from tune_tasks_prefect.artifacts import masked
from tune_tasks_prefect.showing import plain

if TYPE_CHECKING:
    from tune_tasks.studies import Study

PROMOTED = "tune-tasks.model.promoted"
"""The event of a promotion: its payload is what `TOLD` names.

Its resource is `tune-tasks.model.<name>`, with the labels `tune-tasks.alias` and `tune-tasks.trained` (`search`, or
`final` for a model that was trained on all the data), so that a trigger can wait for either.
"""

TOLD = ("name", "alias", "version", "uri", "path", "metric", "value", "study", "trial")
"""What the event and the asset say of the model, as its manifest has it."""


def announce(study: Study, model: dict[str, Any]) -> None:
    """Materialises the asset `models://<name>@<alias>` and emits `PROMOTED`, for a model that was promoted.

    Call it in the task that promoted. Told again for the same promotion, the event has the same id, and Prefect's
    triggers take it once. Outside a run of Prefect, and for a model that was not promoted, it does nothing.
    """
    if not model.get("promoted") or (FlowRunContext.get() is None and TaskRunContext.get() is None):
        return
    try:
        told = _told(model)
        _materialised(study, model, told)
        emit_event(
            PROMOTED,
            resource={
                "prefect.resource.id": resource_of(model["name"]),
                "prefect.resource.name": model["name"],
                "tune-tasks.alias": model["alias"],
                "tune-tasks.trained": trained(study),
            },
            related=[{"prefect.resource.id": asset_of(model), "prefect.resource.role": "asset"}],
            payload=told,
            id=uuid5(NAMESPACE_URL, f"{model['study_id']}/{model['key']}"),
        )
    except Exception as error:  # noqa: BLE001  # the model is promoted; whoever deploys it looks into the registry too
        get_run_logger().warning("The promotion was not announced: %s: %s", type(error).__name__, masked(str(error)))


def resource_of(model: str) -> str:
    """The id of a model as the resource of events, for a trigger's `match`."""
    return f"tune-tasks.model.{model}"


def trained(study: Study) -> str:
    """How the models of a study were trained: `final` where it trains a winner again on all data, else `search`."""
    final = study.spec.final
    return "final" if final is not None and final.of is not None else "search"


def asset_of(model: dict[str, Any]) -> str:
    """The key of a model's asset; what Prefect does not allow in one is a dash."""
    return "models://" + re.sub(r"[^A-Za-z0-9._/@:-]+", "-", f"{model['name']}@{model['alias']}")[:500]


def _told(model: dict[str, Any]) -> dict[str, Any]:
    """What `TOLD` names, without credentials, however the registry is addressed."""
    found = {name: model.get(name) for name in TOLD}
    return {name: masked(value) if isinstance(value, str) else value for name, value in found.items()}


@materialize("models://model", name="champion", cache_policy=NO_CACHE, persist_result=False, retries=0)
def _champion(asset: str, metadata: dict[str, Any]) -> None:
    add_asset_metadata(asset, metadata)


def _materialised(study: Study, model: dict[str, Any], told: dict[str, Any]) -> None:
    """Runs a task whose asset is this model: Prefect takes an asset's key from a task's options alone."""
    from tune_tasks.views.summary import summary, title

    text = f"{plain(title(study.state))}\n\n{plain(str(model['reason']))}\n\n{plain(summary(study.state))}"
    asset = Asset(
        key=asset_of(model),
        properties=AssetProperties(name=f"{model['name']} {model['alias']}", description=text[:2500]),
    )
    version = f" version {model['version']}" if model["version"] else ""
    options: dict[str, Any] = {"assets": [asset], "task_run_name": f"{model['name']} {model['alias']}{version}"}
    _champion.with_options(**options)(asset.key, told)
