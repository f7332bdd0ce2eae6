"""Trials that save to S3 while they train: Ray Tune's published workload "durable trainable", at a scale that fits.

    python benchmarks/durable.py                       # two minutes
    python benchmarks/durable.py --trials 8 --seconds 60 --every 10

Published for 16 trials of 300 s with 10 MB every 10 s, two kept: 392 s, 1.31 times the ideal. Here a few trials run at
once, each on a slot of its own, report every `--every` seconds with a checkpoint of `--size` MB, and the store is
radosgw on this machine. The clock runs from the first report to the end, plus the one interval before it; the ideal is
the length of a trial. tune_tasks publishes through its manifest and log, Ray Tune through pyarrow and its experiment
snapshots.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the servers of the tests

from tests.servers import BUCKET

QUIET = {"RAY_AIR_NEW_OUTPUT": "0", "RAY_USAGE_STATS_ENABLED": "0", "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}
NAMES = {"ours": "tune_tasks", "ray_tune": "Ray Tune"}


def steps(options: argparse.Namespace) -> int:
    """Reports of a trial."""
    return round(options.seconds / options.every)


def write(folder: Path, megabytes: int) -> Path:
    """A checkpoint that does not compress."""
    (folder / "weights").write_bytes(os.urandom(megabytes * 10**6))
    return folder


def ours(options: argparse.Namespace) -> float:
    """tune_tasks, streaming, on an embedded Ray."""
    import ray

    import tune_tasks as tt

    count, every, size = steps(options), options.every, options.size

    def train(config: dict[str, float]) -> None:
        for step in range(count):
            time.sleep(every)
            tt.report({"loss": config["x"] / (step + 1)}, checkpoint=write(tt.get_context().folder, size))

    ray.init(address="local", num_cpus=options.trials, include_dashboard=False, log_to_driver=False)
    spec = tt.StudySpec(
        name="durable",
        store=f"s3://{BUCKET}/ours",
        objective=train,
        metric="loss",
        mode="min",
        space={"x": {"type": "float", "low": 0.0, "high": 1.0}},
        sampler={"name": "random", "seed": 1},
        scheduler={"name": "none", "max_budget": count},
        budget={"trials": options.trials, "concurrency": options.trials},
        execution={"flow": "streaming"},
    )
    state = tt.tune(spec).state
    ended = time.time()
    assert state.count("completed") == options.trials, [trial.error for trial in state.trials]
    first = min(trial.reports[0].time for trial in state.trials)
    return ended - first + every


def ray_tune(options: argparse.Namespace) -> float:
    """Ray Tune on the same slots."""
    import pyarrow.fs
    import ray
    from ray import tune

    count, every, size, marks = steps(options), options.every, options.size, list[float]()

    class Clock(tune.Callback):
        def on_trial_result(self, **_: Any) -> None:
            marks.append(time.time())

    def train(config: dict[str, float]) -> None:
        for step in range(count):
            time.sleep(every)
            with tempfile.TemporaryDirectory() as folder:
                checkpoint = tune.Checkpoint.from_directory(str(write(Path(folder), size)))
                tune.report({"loss": config["x"] / (step + 1)}, checkpoint=checkpoint)

    ray.init(address="local", num_cpus=options.trials, include_dashboard=False, log_to_driver=False)
    host = os.environ["AWS_ENDPOINT_URL"].partition("://")[2]
    files = pyarrow.fs.S3FileSystem(endpoint_override=host, scheme="http")
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={"x": tune.uniform(0.0, 1.0)},
        tune_config=tune.TuneConfig(num_samples=options.trials, metric="loss", mode="min", reuse_actors=True),
        run_config=tune.RunConfig(
            name="durable",
            storage_path=f"{BUCKET}/tune",
            storage_filesystem=files,
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
            verbose=0,
            callbacks=[Clock()],
        ),
    )
    results = tuner.fit()
    assert not results.num_errors
    return time.time() - marks[0] + every


def main() -> None:
    """Runs both, one after the other, each in a process of its own with a server of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=40.0, help="that a trial trains")
    parser.add_argument("--every", type=float, default=4.0, help="seconds between two checkpoints of a trial")
    parser.add_argument("--size", type=int, default=10, help="MB of a checkpoint")
    parser.add_argument("--only", default=",".join(NAMES), help="contenders, with commas between them")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps({"ours": ours, "ray_tune": ray_tune}[options.child](options)))
        return
    print(f"{'':16}{'seconds':>9}{'x ideal':>9}   ({options.trials} trials of {options.seconds:g} s)")
    for name in options.only.split(","):
        seconds = child(name)
        print(f"{NAMES[name]:16}{seconds:9.1f}{seconds / options.seconds:9.3f}", flush=True)


def child(name: str) -> float:
    """Runs a contender; its seconds."""
    from tests.servers.ceph import radosgw

    with tempfile.TemporaryDirectory() as folder, radosgw(Path(folder)) as server:
        command = [sys.executable, __file__, *sys.argv[1:], "--child", name]
        variables = {**os.environ, **server.environment, **QUIET}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stdout}\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
