"""What a task read and made, as OpenLineage tells it: data, studies, models, and what was deployed.

OpenLineage's packages are loaded when its listener asks, and a provider without them works the same. This module must
not open a study or a store, and must not tell a credential.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tune_tasks_airflow.operators import ASSET_EXTRA

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

    from tune_tasks.studies import Study

STUDY_FACET, MODEL_FACET = "tuneTasks_study", "tuneTasks_model"
_TRAINS = frozenset({"launch_trials", "tune", "train_final"})
"""The steps that read what is trained on."""
_TAKES = frozenset({"promote_best", "train_final", "deploy", "undeploy"})
"""The steps that take a study as it is, and make something else of it."""


def lineage(step: str, study: Study, result: Mapping[str, Any] | None) -> OperatorLineage[Any, Any]:
    """The datasets and facets of one step; `result` is what it returned, None where it failed.

    A study is the dataset of its URL. A model is that of its name below the store, where the ledger of its champions
    lies, with its version, registry URI and folder as facets: so the task that deploys it reads what a promotion made.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage

    state = study.state
    data = _data(state.spec.data) if step in _TRAINS else []
    parents = [_dataset(state.parent)] if state.parent and step not in _TAKES else []
    inputs = [*data, *parents]
    if step in _TAKES:
        inputs.append(_dataset(study.url))
    outputs = [] if step in _TAKES else [_dataset(study.url)]
    if result is not None:
        read, made = _followed(step, study, result)
        inputs, outputs = [*inputs, *read], [*outputs, *made]
    return OperatorLineage(inputs=inputs, outputs=outputs, run_facets={STUDY_FACET: _study_facet(step, study)})


def _followed(step: str, study: Study, result: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """What the steps after the search read and made besides."""
    match step:
        case "promote_best" if result["promoted"]:
            return [], [_model(study, result)]
        case "train_final":
            return [], [_dataset(result["final"])]
        case "deploy" if result["deployed"]:
            version = {"version": _version(result["version"])}
            return [_dataset(_place_of_model(study, result["name"]), version)], [_dataset(result["url"], version)]
        case _:
            return [], []


def _model(study: Study, model: Mapping[str, Any]) -> Any:
    """A promoted model, by whatever name one looks for it."""
    from openlineage.client.facet_v2 import DatasetFacet, dataset_type_dataset, symlinks_dataset

    names = [symlinks_dataset.Identifier(*_name(model["path"]), type="DIRECTORY")] if model["path"] else []
    if (model["uri"] or "").startswith("models:/"):
        names.append(symlinks_dataset.Identifier("models:", model["uri"].removeprefix("models:/"), type="MODEL"))
    facets = {
        **({"version": _version(model["version"])} if model["version"] else {}),
        "datasetType": dataset_type_dataset.DatasetTypeDatasetFacet("MODEL"),
        "symlinks": symlinks_dataset.SymlinksDatasetFacet(names),
        MODEL_FACET: DatasetFacet().with_additional_properties(**{name: model[name] for name in ASSET_EXTRA}),
    }
    return _dataset(_place_of_model(study, model["name"]), facets)


def _study_facet(step: str, study: Study) -> Any:
    from openlineage.client.facet_v2 import RunFacet

    state, best = study.state, study.best
    return RunFacet().with_additional_properties(
        study=study.url,
        step=step,
        pipeline=state.pipeline,
        metric=state.spec.metric,
        mode=state.spec.mode,
        trials=len(state.trials),
        wanted=state.spec.budget.trials,
        done=state.done,
        reason=state.reason,
        best=best.number if best else None,
        value=best.value if best else None,
    )


def _data(data: str | None) -> list[Any]:
    """What is trained on, where it is somewhere: the URL or path of files, with the digest after it as the version."""
    place, _, digest = (data or "").partition("#")
    if "://" not in place and not place.startswith("/"):
        return []
    return [_dataset(place, {"version": _version(digest)} if digest else {})]


def _place_of_model(study: Study, name: str) -> str:
    from tune_tasks.registry.champions import FOLDER

    return f"{study.url.rpartition('/')[0]}/{FOLDER}/{name}"


def _version(version: str) -> Any:
    from openlineage.client.facet_v2 import dataset_version_dataset

    return dataset_version_dataset.DatasetVersionDatasetFacet(str(version))


def _dataset(url: str, facets: dict[str, Any] | None = None) -> Any:
    from openlineage.client.event_v2 import Dataset

    return Dataset(*_name(url), facets=facets or {})


def _name(url: str) -> tuple[str, str]:
    """A place by OpenLineage's rules for names: what is before the path, and the path; without a credential."""
    from tune_tasks.store.names import shown_url

    scheme, separator, rest = shown_url(url).partition("://")
    if not separator or scheme == "file":
        return "file", rest or scheme
    authority, _, path = rest.partition("/")
    return f"{scheme}://{authority}", path or "/"
