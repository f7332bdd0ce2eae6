"""Where a runner's trials run: a Ray that is attached to, what every worker there gets, and who watches it.

This module must not hand out tasks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from tune_tasks.errors import ConfigError
from tune_tasks.execution import cluster, environment, inputs, notices
from tune_tasks.execution.attempt import Workload
from tune_tasks.execution.crew import Crew
from tune_tasks.execution.hired import Clock, Kit
from tune_tasks.execution.lookout import Lookout
from tune_tasks.execution.nodes import Nodes
from tune_tasks.execution.placement import Shape
from tune_tasks.spec import StudySpec

_SMALL = 2**16
"""Bytes of an objective; Ray sends arguments of up to 100 KiB along."""


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster with the workers of one runner."""

    attached: bool
    lookout: Lookout
    nodes: Nodes
    crew: Crew

    @classmethod
    def open(
        cls,
        spec: StudySpec,
        workload: Workload,
        shape: Shape,
        clock: Clock,
        *,
        address: str | None,
        loaders: Mapping[str, Any],
    ) -> Self:
        """Attaches to a Ray, and leaves it again where a trial cannot run there.

        Raises `ConfigError` where no node can hold one, or an input cannot be loaded; `Unavailable` where no Ray is.
        """
        notices.choose(spec.execution.notice, workload.folder)
        attached = cluster.attach(address, _shipped(spec, workload.folder))
        lookout = None
        try:
            lookout = Lookout(address)
            nodes = Nodes(spec.budget, shape, lookout.sight, autoscaler=spec.execution.autoscaler)
            nodes.check(shape)
            kit = _kit(spec, workload, loaders)
            return cls(attached, lookout, nodes, Crew(kit, workload.url, nodes, clock))
        except BaseException:
            _leave(attached, lookout)
            raise

    def close(self) -> None:
        """Ends the workers, and the Ray that was started here."""
        self.crew.end(lost=self.lookout.sight.lost is not None)
        _leave(self.attached, self.lookout)


def _leave(attached: bool, lookout: Lookout | None) -> None:  # noqa: FBT001  # private, and called by these names
    if lookout is not None:
        lookout.close()
    if attached:
        cluster.detach()


def _kit(spec: StudySpec, workload: Workload, loaders: Mapping[str, Any]) -> Kit:
    """Puts what workers share into Ray's store, each input by itself: arrays are then read where they lie.

    A small workload goes with the order to start a worker: a new node that looks for a copy of it on one which has
    just gone would wait there for ten seconds.
    """
    import ray

    shared = {name: ray.put(value) for name, value in inputs.load(loaders, workload.folder).items()}
    workload = replace(_portable(workload), inputs=shared)
    small = isinstance(workload.objective, str) or len(workload.objective) <= _SMALL
    env = {} if _inherits() else environment.worker_env(spec, workload.folder)
    return Kit(spec, workload if small else ray.put(workload), env)


def _shipped(spec: StudySpec, folder: str | None) -> dict[str, Any]:
    """The part of the runtime environment that Ray takes only where a process attaches itself."""
    if spec.environment.working_dir is None or _inherits():
        return {}
    whole = environment.runtime_env(spec, folder)
    return {name: whole[name] for name in ("working_dir", "excludes") if name in whole}


def _inherits() -> bool:
    """Whether this process is a Ray job: its workers have the job's runtime environment already."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _portable(workload: Workload) -> Workload:
    """The workload with a Python objective as a pickle: loading it can then fail the trial, not the worker."""
    from ray import cloudpickle

    objective = workload.objective
    if isinstance(objective, str):
        return workload
    try:
        return replace(workload, objective=cloudpickle.dumps(objective))  # type: ignore[no-untyped-call]
    except Exception as error:
        raise ConfigError(
            f"objective: {objective!r} cannot be sent to the workers: {type(error).__name__}: {error}; "
            "put it into a module and name it by an import string"
        ) from error
