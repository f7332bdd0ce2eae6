"""The machines of a simulation: how many, what they hold and cost, and how often they are taken away.

Values and their validation only; what happens to the machines is in `nodes`.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path

from tune_tasks.errors import ConfigError, invalid
from tune_tasks.spec import StudySpec

HOUR = 3600.0
PREEMPTIONS = 1 / 24
"""Preemptions per node-hour where nothing is said, the harshest that is published: Google Cloud stops a preemptible
VM after 24 hours at the latest (Compute Engine documentation, "Preemptible VM instances"). The AWS Spot Instance
Advisor gives bands by month, <5%, 5-10%, 10-15%, 15-20% and >20%: 20% are 0.0003 per node-hour (`monthly`)."""

IDLE = 300.0
"""Seconds without a trial after which a node is given back where nothing is said: as long as Ray's autoscaler waits by
default on virtual machines (`idle_timeout_minutes: 5`); on Kubernetes it waits 60 s."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A row of a trace: at `time` seconds a node is taken, and for `down` seconds there is none in its place."""

    time: float
    down: float = 0.0


@dataclass(frozen=True, slots=True)
class Pool:
    """Machines of one kind.

    `slots`: trials that one node holds. `start_up`: seconds from asking for a node to its first trial, which are paid.
    `idle`: seconds without a trial after which a node is given back, until trials wait that find no slot.
    `price`: per node-hour. `preemptions`: per node-hour; with a `trace`, that says when instead. `notice`: seconds
    between the warning and the end.
    """

    nodes: int
    slots: int
    cpus: float
    gpus: float = 0.0
    start_up: float = 120.0
    idle: float = IDLE
    price: float = 1.0
    preemptions: float = 0.0
    notice: float = 30.0
    trace: tuple[Loss, ...] = field(default=(), repr=False)

    @property
    def preemptible(self) -> bool:
        """Whether nodes are ever taken away."""
        return bool(self.preemptions or self.trace)


def monthly(share: float) -> float:
    """Preemptions per node-hour, where this share of all nodes is interrupted within a month of 730 hours."""
    return -math.log1p(-share) / 730.0


def slots_of(spec: StudySpec, cpus: float, gpus: float) -> int:
    """How many trials a node holds. Raises `ConfigError` where it cannot hold one."""
    bundles = (spec.resources, *spec.resources.bundles)
    needs = {"cpu": sum(bundle.cpu for bundle in bundles), "gpu": sum(bundle.gpu for bundle in bundles)}
    fits = math.inf
    for name, has in (("cpu", cpus), ("gpu", gpus)):
        need = needs[name]
        if need > has:
            raise invalid(
                f"--{name}s", has, f"a trial needs {need:g} by the section resources, so a node must have as many"
            )
        fits = min(fits, has / need if need else math.inf)
    return int(fits + 1e-9) if math.isfinite(fits) else 1


def read_trace(path: str) -> tuple[Loss, ...]:
    """Reads rows of `time,down` in seconds, by time; a header and blank lines are passed over.

    Raises `ConfigError` with the line that is wrong.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--trace: {path!r} cannot be read: {error}") from error
    rows = [(number, row) for number, row in enumerate(csv.reader(lines), 1) if any(cell.strip() for cell in row)]
    if rows and rows[0][1][0].strip() == "time":
        rows = rows[1:]
    if not rows:
        raise invalid("--trace", path, "the file must have rows of time,down in seconds")
    return tuple(sorted((_loss(path, number, row) for number, row in rows), key=lambda loss: loss.time))


def _loss(path: str, line: int, row: list[str]) -> Loss:
    try:
        numbers = [float(cell) for cell in row]
    except ValueError:
        numbers = []
    if len(numbers) not in {1, 2} or not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise invalid(f"{path}:{line}", ",".join(row), "write time,down in seconds, both at least 0")
    return Loss(*numbers)
