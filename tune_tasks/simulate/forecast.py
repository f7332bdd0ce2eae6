"""From a spec and what a person says about machines to a forecast: the study played on both kinds of nodes.

This module must not read the command line, and must not print.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tune_tasks import plugins
from tune_tasks.errors import ConfigError, invalid
from tune_tasks.simulate.landscape import Landscape
from tune_tasks.simulate.model import Assumed, Model
from tune_tasks.simulate.pool import IDLE, PREEMPTIONS, Loss, Pool, slots_of
from tune_tasks.simulate.recorded import Recorded
from tune_tasks.simulate.result import Forecast
from tune_tasks.simulate.run import BETWEEN, play
from tune_tasks.spec import StudySpec
from tune_tasks.study import StudyState

WORKERS = 4
"""Trials at once where neither the spec nor the caller says how many."""
CPUS = 4.0
"""Cores of a node where nothing is said; fewer where the trials at once need fewer, more where one trial needs more."""
STEPS = 10
"""Steps after which an objective returns, where no scheduler sets a budget."""
PREEMPTIBLE = 0.3
"""What a preemptible node costs beside the same one on demand, where nothing is said."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is assumed about training and machines; None is worked out from the spec. Times in seconds.

    `workers`: trials at once. `cpus`, `gpus`: of one node. `step_time`: mean, or a function of the configuration.
    `price`: per node-hour. `preemptions`: per node-hour. See `Pool`, `Assumed` and `run.play` for the others.
    """

    workers: int | None = None
    nodes: int | None = None
    cpus: float | None = None
    gpus: float | None = None
    step_time: float | Callable[[dict[str, Any]], float] = 30.0
    spread: float = 0.5
    steps: int = STEPS
    failures: float = 0.0
    start_up: float = 120.0
    idle: float = IDLE
    price: float = 1.0
    preemptible_price: float | None = None
    preemptions: float = PREEMPTIONS
    notice: float = 30.0
    trace: tuple[Loss, ...] = ()
    checkpoint_every: int = 1
    between: float = BETWEEN
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not callable(value) and not (value >= low and math.isfinite(value)):
                raise invalid(_option(name), value, f"must be at least {low:g}")
        if self.failures > 1:
            raise invalid(_option("failures"), self.failures, "it is a share of the attempts, from 0 to 1")
        if not callable(self.step_time) and not self.step_time > 0:
            raise invalid(_option("step_time"), self.step_time, "must be above 0 s")


_LEAST: dict[str, float] = {
    **dict.fromkeys(("workers", "nodes", "steps"), 1),
    **dict.fromkeys(("cpus", "gpus", "spread", "failures", "start_up", "price", "preemptible_price"), 0),
    **dict.fromkeys(("step_time", "idle", "preemptions", "notice", "checkpoint_every", "between", "seed"), 0),
}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def simulate(spec: StudySpec, scenario: Scenario | None = None, *, like: StudyState | None = None) -> Forecast:
    """Plays the study on nodes on demand and on preemptible ones; nothing is created where the spec's store is.

    `like` is a study that was run already: its trials say how these go. The same arguments give the same forecast.
    Raises `ConfigError` for what cannot be.
    """
    scenario = scenario or Scenario()
    plugins.sampler(spec)
    bounded = plugins.scheduler(spec).max_budget is not None
    model = _model(spec, scenario, like, bounded=bounded)
    workers, pool = _machines(spec, scenario)
    known = spec.model_copy(update={"budget": spec.budget.model_copy(update={"concurrency": workers})})
    cheaper = PREEMPTIBLE * scenario.price if scenario.preemptible_price is None else scenario.preemptible_price
    preemptible = replace(pool, price=cheaper, preemptions=scenario.preemptions, trace=scenario.trace)
    plays = tuple(
        play(
            known,
            machines,
            model,
            seed=scenario.seed,
            checkpoint_every=scenario.checkpoint_every,
            between=scenario.between,
        )
        for machines in (pool, preemptible)
    )
    return Forecast(
        study=spec.name,
        metric=spec.metric,
        mode=spec.mode,
        flow=_flow(spec),
        assumptions=tuple(_assumptions(spec, scenario, workers, preemptible, model)),
        plays=plays,
    )


def _model(spec: StudySpec, scenario: Scenario, like: StudyState | None, *, bounded: bool) -> Model:
    if like is not None:
        if like.spec.metric != spec.metric or like.spec.space != spec.space:
            what = "metric" if like.spec.metric != spec.metric else "space"
            raise ConfigError(f"--like: study {like.spec.name!r} has another {what} than {spec.name!r}; give one alike")
        return Recorded(like, spec.space, bounded=bounded)
    return Assumed(
        Landscape(spec.space, spec.mode, scenario.seed),
        scenario.step_time,
        scenario.spread,
        None if bounded else scenario.steps,
        scenario.failures,
        scenario.seed,
    )


def _machines(spec: StudySpec, scenario: Scenario) -> tuple[int, Pool]:
    bundles = (spec.resources, *spec.resources.bundles)
    need = sum(bundle.cpu for bundle in bundles)
    wanted = scenario.workers or spec.budget.concurrency or WORKERS
    cpus = scenario.cpus if scenario.cpus is not None else float(math.ceil(max(need, min(CPUS, wanted * need), 1)))
    gpus = scenario.gpus if scenario.gpus is not None else float(math.ceil(sum(b.gpu for b in bundles)))
    slots = slots_of(spec, cpus, gpus)
    if scenario.nodes is not None:
        workers = scenario.workers or min(scenario.nodes * slots, spec.budget.concurrency or scenario.nodes * slots)
        nodes = scenario.nodes
    else:
        workers = wanted
        nodes = -(-workers // slots)
    workers = min(workers, nodes * slots)
    alike = {name: getattr(scenario, name) for name in ("start_up", "idle", "price", "notice")}
    return workers, Pool(nodes, slots, cpus, gpus, **alike)


def _flow(spec: StudySpec) -> str:
    if spec.execution.flow == "streaming":
        return "streaming"
    return "rounds with carry-over" if spec.execution.runner == "job" else "rounds"


def _assumptions(spec: StudySpec, scenario: Scenario, workers: int, pool: Pool, model: Model) -> Iterator[str]:
    """In words for a person, what the forecast rests on."""
    gpus = f" and {pool.gpus:g} GPUs" if pool.gpus else ""
    node = "1 node" if pool.nodes == 1 else f"{pool.nodes} nodes"
    yield (
        f"{workers} trials at once on {node} of {pool.cpus:g} cores{gpus}, which hold {pool.slots} each, "
        f"are up {pool.start_up:g} s after they are asked for, and are paid for from then until they have run nothing "
        f"for {pool.idle:g} s or the study ends; they are asked for again when trials wait"
    )
    yield from model.assumptions()
    every = scenario.checkpoint_every
    yield (
        "no checkpoints: a trial starts again from its first step"
        if not every
        else (f"a checkpoint every {'step' if every == 1 else f'{every} steps'}, which takes no time")
    )
    taken = f"{len(pool.trace)} rows of a trace" if pool.trace else f"{pool.preemptions:.3g} times per node-hour"
    yield (
        f"preemptible nodes are taken away {taken}, after a notice of {pool.notice:g} s, and replaced; what is lost "
        f"without time for a checkpoint is noticed after {spec.execution.heartbeat:g} s"
    )
    yield f"a node costs {scenario.price:g} an hour on demand and {pool.price:g} preemptible; storage costs nothing"
    if spec.execution.flow == "rounds":
        yield f"{scenario.between:g} s pass between the launch steps of two rounds"
