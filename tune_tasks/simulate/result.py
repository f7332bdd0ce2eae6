"""What a simulation says. Values only; nothing in here depends on the machine on which it ran."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tune_tasks.simulate.pool import HOUR, Pool


@dataclass(frozen=True, slots=True)
class Play:
    """The study played once on one kind of nodes. Times in seconds; `*_time` in slot-seconds, over all slots.

    paid_time = start_up_time + busy_time + idle_time, and steps = useful steps + `repeated`. `wasted_time` is the part
    of busy_time since the last checkpoint of what was lost. `usage` has rows of time, slots up and slots busy, each
    the average up to the next row; `progress` has rows of time, cost and best value so far.
    """

    pool: Pool
    wall_time: float
    node_hours: float
    paid_time: float
    start_up_time: float
    busy_time: float
    idle_time: float
    wasted_time: float
    steps: int
    repeated: int
    preemptions: int
    lost: int
    moved: int
    trials: dict[str, int]
    best: float | None
    reason: str
    usage: list[tuple[float, float, float]]
    progress: list[tuple[float, float, float]]

    @property
    def cost(self) -> float:
        """What the nodes cost."""
        return self.node_hours * self.pool.price

    @property
    def gpu_hours(self) -> float:
        """Paid hours of GPUs."""
        return self.node_hours * self.pool.gpus

    @property
    def cpu_hours(self) -> float:
        """Paid hours of CPU cores."""
        return self.node_hours * self.pool.cpus

    @property
    def trial_hours(self) -> float:
        """Hours in which trials ran, over all slots."""
        return self.busy_time / HOUR

    @property
    def utilisation(self) -> float:
        """The share of the slots that were up which ran a trial, from the first node up to the end."""
        up = self.busy_time + self.idle_time
        return self.busy_time / up if up else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        known = asdict(self)
        pool = known.pop("pool")
        pool["trace"] = len(self.pool.trace)
        derived = ("cost", "gpu_hours", "cpu_hours", "utilisation")
        return {"pool": pool, **{name: getattr(self, name) for name in derived}, **known}


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a study would cost, on each kind of nodes, and what that rests on."""

    study: str
    metric: str
    mode: str
    flow: str
    assumptions: tuple[str, ...]
    plays: tuple[Play, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        own = {name: getattr(self, name) for name in ("study", "metric", "mode", "flow", "assumptions")}
        return {**own, "plays": [play.to_dict() for play in self.plays]}
