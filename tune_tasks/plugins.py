"""Finds samplers, schedulers, trackers and targets by name, its own and those of other packages, through entry points.

This module must not import a plug-in before a spec names it, and must not decide what a plug-in's options mean.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from tune_tasks.delivery import Deploy
from tune_tasks.deployment import GROUP as TARGETS
from tune_tasks.deployment import Target
from tune_tasks.errors import ConfigError, invalid
from tune_tasks.samplers import GROUP as SAMPLERS
from tune_tasks.samplers import Sampler
from tune_tasks.schedulers import GROUP as SCHEDULERS
from tune_tasks.schedulers import Scheduler
from tune_tasks.sections import Plugin
from tune_tasks.spec import StudySpec, explain
from tune_tasks.tracking import GROUP as TRACKERS
from tune_tasks.tracking import Tracker

_BUILT_IN = {
    SAMPLERS: {
        "random": "tune_tasks.samplers.random:RandomSampler",
        "grid": "tune_tasks.samplers.grid:GridSampler",
        "sobol": "tune_tasks.samplers.sobol:SobolSampler",
        "tpe": "tune_tasks.samplers.tpe:TPESampler",
    },
    SCHEDULERS: {
        "none": "tune_tasks.schedulers.none:NoScheduler",
        "asha": "tune_tasks.schedulers.asha:ASHA",
        "successive_halving": "tune_tasks.schedulers.successive_halving:SuccessiveHalving",
        "hyperband": "tune_tasks.schedulers.hyperband:Hyperband",
        "median": "tune_tasks.schedulers.median:MedianStopping",
    },
    TRACKERS: {
        "mlflow": "tune_tasks.tracking.mlflow:MLflowTracker",
        "tensorboard": "tune_tasks.tracking.tensorboard:TensorBoardTracker",
        "files": "tune_tasks.tracking.files:FilesTracker",
    },
    TARGETS: {
        "serve": "tune_tasks.deployment.serve:ServeTarget",
        "folder": "tune_tasks.deployment.folder:FolderTarget",
    },
}


def sampler(spec: StudySpec) -> Sampler:
    """Builds the sampler that the spec names. Raises `ConfigError` for an unknown name or option."""
    return cast("Sampler", _build(SAMPLERS, "sampler", spec.sampler))


def scheduler(spec: StudySpec) -> Scheduler:
    """Builds the scheduler that the spec names. Raises `ConfigError` for an unknown name or option."""
    return cast("Scheduler", _build(SCHEDULERS, "scheduler", spec.scheduler))


def target(section: Deploy) -> Target:
    """Builds the target that the section names. Raises `ConfigError` for an unknown name or option."""
    return cast("Target", _build(TARGETS, "deploy.target", section.target))


def trackers(spec: StudySpec) -> list[Tracker]:
    """Builds the trackers that the spec names, in its order. Raises `ConfigError` for an unknown name or option."""
    return [
        cast("Tracker", _build(TRACKERS, f"tracking.{number}", plugin)) for number, plugin in enumerate(spec.tracking)
    ]


def available(group: str) -> dict[str, EntryPoint]:
    """The plug-ins of a group by name; the built-in ones are there even where nothing is installed."""
    return {**{point.name: point for point in entry_points(group=group)}, **_built_in(group)}


def _built_in(group: str) -> dict[str, EntryPoint]:
    return {name: EntryPoint(name, value, group) for name, value in _BUILT_IN[group].items()}


def _build(group: str, kind: str, plugin: Plugin) -> Any:
    known = _built_in(group)
    if plugin.name not in known:  # only then, as reading the metadata of every installed package takes a while
        known = available(group)
    if plugin.name not in known:
        raise invalid(f"{kind}.name", plugin.name, f"there are {', '.join(sorted(known))}", known)
    try:
        made: type[BaseModel] = known[plugin.name].load()
    except ImportError as error:
        raise ConfigError(f"{kind}.name: {plugin.name!r} cannot be loaded: {error}") from error
    try:
        return made(**plugin.options)
    except ValidationError as error:
        raise explain(error, made, kind) from None
