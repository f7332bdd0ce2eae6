"""What the simulator says of the driver, and how fast: utilisation, the price of preemptions, 100,000 trials.

    python benchmarks/simulator.py                      # everything, a quarter of an hour on one core
    python benchmarks/simulator.py --only use,price

use: busy share of the slots with trials whose speeds differ log-normally with sigma 1, ASHA from 1 to 27 steps of 30 s,
over 12 mean full trainings, from the first node up to the end, on nodes that stay. price: what preemptible node-hours
cost beside the same hours uninterrupted, at published interruption rates, with sigma 0.5 and 1. size: 100,000 trials
on 1,000 slots, streaming.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import time
from typing import Any

from tune_tasks.sections import Plugin
from tune_tasks.simulate import Play, Scenario, simulate
from tune_tasks.simulate.landscape import Landscape
from tune_tasks.simulate.model import Assumed
from tune_tasks.simulate.pool import PREEMPTIONS, Pool, monthly
from tune_tasks.simulate.run import play
from tune_tasks.spec import StudySpec

STEP = 30.0
MOST = 27
SEEDS = 5
STAY = 1e9
FLOWS: dict[str, dict[str, Any]] = {
    "rounds": {"flow": "rounds"},
    "rounds with carry-over": {"flow": "rounds", "runner": "job"},
    "streaming": {"flow": "streaming"},
}
RATES = {
    "Google Cloud, Preemptible VM instances: stopped after 24 h at the latest": PREEMPTIONS,
    "AWS Spot Instance Advisor, the band of >20% a month (at 20%)": monthly(0.2),
    "one an hour, which nobody publishes": 1.0,
}


def study(trials: int, workers: int, execution: dict[str, Any], most: int = MOST, **budget: Any) -> StudySpec:
    """Random search under ASHA over three parameters."""
    return StudySpec(
        name="imagined",
        objective="nowhere:train",
        metric="loss",
        mode="min",
        space={name: {"type": "float", "low": 0.0, "high": 1.0} for name in ("x", "y", "z")},
        sampler="random",
        scheduler={"name": "asha", "max_budget": most},
        budget={"trials": trials, "concurrency": workers, **budget},
        execution=execution,
    )


def use() -> None:
    """Utilisation by the way of running."""
    print(f"{'slots':>6}  {'flow':<24}{'utilisation':>12}{'steps':>8}")
    for workers in (16, 64):
        for name, execution in FLOWS.items():
            spec = study(100_000, workers, execution, wall_time=12 * MOST * STEP)
            played = simulate(spec, Scenario(cpus=8, spread=1.0, preemptions=0.0, idle=STAY)).plays[0]
            print(f"{workers:>6}  {name:<24}{played.utilisation:>12.1%}{played.steps:>8}", flush=True)


def price() -> None:
    """Node-hours of the same trials with and without preemptions."""
    print(f"{'rate':<76}{'sigma':>6}{'step':>6}{'taken':>6}{'twice':>6}{'node-hours':>11}{'more':>7}")
    for spread, step in itertools.product((0.5, 1.0), (STEP, 600.0)):
        plain = sum(whole(step, spread, 0.0, seed).node_hours for seed in range(SEEDS))
        for name, rate in RATES.items():
            taken = [whole(step, spread, rate, seed) for seed in range(SEEDS)]
            hours = sum(played.node_hours for played in taken)
            nodes = sum(played.preemptions for played in taken)
            steps = sum(played.repeated for played in taken)
            row = f"{name:<76}{spread:>6}{step:>5.0f}s{nodes:>6}{steps:>6}{hours:>11.1f}{hours / plain - 1:>7.1%}"
            print(row, flush=True)


def whole(step: float, spread: float, rate: float, seed: int) -> Play:
    """400 trials of 9 steps each on 4 nodes of 8 slots: the same work, whatever is taken away."""
    spec = study(400, 32, {"flow": "streaming"}).model_copy(update={"scheduler": Plugin(name="none", max_budget=9)})
    scenario = Scenario(cpus=8, step_time=step, spread=spread, preemptions=rate, seed=seed)
    return simulate(spec, scenario).plays[1]


def size(trials: int = 100_000, workers: int = 1000) -> None:
    """The driver at a size that no test machine has."""
    spec = study(trials, workers, {"flow": "streaming"}, most=9)
    model = Assumed(Landscape(spec.space, spec.mode, 0), STEP, 1.0)
    start = time.perf_counter()
    played = play(spec, Pool(nodes=-(-workers // 8), slots=8, cpus=8.0), model)
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{trials} trials, {played.steps} reports, {workers} slots: {seconds:.0f} s on one core, "
        f"{seconds / played.steps * 1e6:.0f} us a report, {memory:.0f} MiB at most; "
        f"imagined wall time {played.wall_time / 3600:.1f} h"
    )


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="use,price,size", help="use, price, size; several with commas")
    parser.add_argument("--trials", type=int, default=100_000, help="of size")
    options = parser.parse_args()
    for name in options.only.split(","):
        {"use": use, "price": price, "size": lambda: size(options.trials)}[name]()


if __name__ == "__main__":
    main()
