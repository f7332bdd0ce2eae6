"""The digits study on three nodes, one of which dies every few seconds: beside itself undisturbed, and Ray Tune.

    python benchmarks/preemption.py                    # about five minutes
    python benchmarks/preemption.py --every 6 --trials 24 --only quiet,deaths

A real Ray cluster on this machine: a head without slots and three nodes with one each. A node dies as a preempted
machine does, by SIGKILL of its raylet and of all that runs on it, in turn; another joins at once. Each epoch is
stretched to `--epoch` seconds, is noted in a side file, synced, and checkpointed. "Run again" counts epochs that were
trained more than once. Ray Tune has the same search, `max_failures=-1`, and its own default snapshots.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from epochs import noted
from killed import ROOT, environment, start

SPEC = ROOT / "examples" / "digits" / "study.yaml"
NODES = 3
RUNS = {
    "quiet": "tune_tasks, undisturbed",
    "deaths": "tune_tasks, with deaths",
    "tune_quiet": "Ray Tune, undisturbed",
    "tune_deaths": "Ray Tune, with deaths",
}


class Cluster:
    """A head and three nodes, which die when they are told to."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        self._cluster = RayCluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._nodes = [self._cluster.add_node(num_cpus=1) for _ in range(NODES)]
        self.address = self._cluster.address
        self.deaths = 0

    def lose_one(self) -> None:
        """Kills the oldest node, and has another one join."""
        self._cluster.remove_node(self._nodes.pop(0), allow_graceful=False)
        self.deaths += 1
        self._nodes.append(self._cluster.add_node(num_cpus=1))

    def close(self) -> None:
        """Ends every process of it; politely would take minutes, as each node asks the head first."""
        for node in [*self._nodes, self._cluster.head_node]:
            self._cluster.remove_node(node, allow_graceful=False)


def run(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One contender on a cluster of its own."""
    folder.mkdir(parents=True)
    notes = folder / "notes"
    os.environ.update(environment(notes, Path("/tmp")), CHAOS_EPOCH_SECONDS=str(options.epoch))  # noqa: S108
    cluster = Cluster()
    try:
        command = tune_tasks(cluster, options, folder) if name in {"quiet", "deaths"} else ray_tune(options, folder)
        variables = {**os.environ, "CHAOS_ADDRESS": cluster.address}
        begun = time.monotonic()
        process = start(command, variables, folder / "output")
        code = watch(process, cluster, options.every if name.endswith("deaths") else math.inf, options.limit)
        seconds = time.monotonic() - begun
    finally:
        cluster.close()
    if code:
        sys.exit(f"{name} failed:\n{(folder / 'output').read_text()[-3000:]}")
    epochs = noted(notes)
    return {
        "seconds": seconds,
        "deaths": cluster.deaths,
        "epochs": len(epochs),
        "again": len(epochs) - len(set(epochs)),
        **outcome(name, folder),
    }


def watch(process: subprocess.Popen[bytes], cluster: Cluster, every: float, limit: float) -> int:
    """Has a node die every so many seconds until the process ends; returns its exit code."""
    begun = died = time.monotonic()
    while process.poll() is None:
        time.sleep(0.05)
        now = time.monotonic()
        if now - died >= every:
            died = now
            cluster.lose_one()
        if now - begun > limit:
            process.kill()
    return process.wait()


def tune_tasks(cluster: Cluster, options: argparse.Namespace, folder: Path) -> list[str]:
    """The command of ours."""
    changes = {
        "store": folder,
        "objective": "epochs:train",
        "budget.trials": options.trials,
        "budget.wall_time": "null",
        "budget.concurrency": NODES,
        "execution.address": cluster.address,
        "execution.flow": "streaming",
    }
    sets = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    return ["-m", "tune_tasks", "run", str(SPEC), "--no-promote", *sets]


def ray_tune(options: argparse.Namespace, folder: Path) -> list[str]:
    """The command of Ray Tune."""
    return [str(ROOT / "benchmarks" / "ray_tune.py"), str(folder), str(options.trials), "7"]


def outcome(name: str, folder: Path) -> dict[str, Any]:
    """What each of them says of its end."""
    if name.startswith("tune_"):
        said = json.loads((folder / "best.json").read_text())
        return {"best": said["best"], "failed": said["errors"]}
    from tune_tasks import open_study

    state = open_study(str(folder / "digits-mlp")).state
    assert state.best is not None
    return {"best": state.best.value, "failed": state.count("failed")}


def main() -> None:
    """Runs the contenders one after another, and shows them beside each other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epoch", type=float, default=0.3, help="seconds that an epoch takes at least")
    parser.add_argument("--every", type=float, default=8.0, help="seconds between two deaths")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which a contender is given up")
    parser.add_argument("--only", default=",".join(RUNS), help="contenders, with commas between them")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="preemption-"))
    try:
        results = {name: run(name, options, root / name) for name in options.only.split(",")}
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(f"{'':26}{'seconds':>9}{'deaths':>8}{'epochs':>8}{'run again':>11}{'best':>9}{'failed':>8}")
    for name, row in results.items():
        print(
            f"{RUNS[name]:26}{row['seconds']:9.1f}{row['deaths']:8}{row['epochs']:8}{row['again']:11}"
            f"{row['best']:9.4f}{row['failed']:8}"
        )
    for quiet, deaths in pairs(results):
        print(f"{RUNS[deaths]}: {results[deaths]['seconds'] / results[quiet]['seconds']:.2f} times undisturbed")


def pairs(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Which run is to be compared with which."""
    both = [("quiet", "deaths"), ("tune_quiet", "tune_deaths")]
    return [(quiet, deaths) for quiet, deaths in both if quiet in results and deaths in results]


if __name__ == "__main__":
    main()
