"""The digits example on Ray Tune, for other benchmarks: begins an experiment, or restores the one that is there.

What it knows after `Tuner.restore`, and at the end, goes to JSON files in the folder: for each trial the epochs.
`CHAOS_ADDRESS` in the environment names a running cluster; there, a trial may lose its node as often as it likes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from epochs import MAX_EPOCHS, train_in_ray_tune
from ray import init, tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

NAME = "digits"
ADDRESS = os.environ.get("CHAOS_ADDRESS", "local")


def main(folder: Path, trials: int, seed: int) -> None:
    """Runs to the end, and writes `restored.json` and `final.json`."""
    here = {"num_cpus": 2, "include_dashboard": False} if ADDRESS == "local" else {}
    init(address=ADDRESS, log_to_driver=False, logging_level="ERROR", **here)
    path = str(folder / NAME)
    if tune.Tuner.can_restore(path):
        tuner = tune.Tuner.restore(path, train_in_ray_tune)
        known = {_trial(result): list(range(1, 1 + _epoch(result))) for result in tuner.get_results()}
        (folder / "restored.json").write_text(json.dumps(known))
    else:
        (folder / "restored.json").write_text("{}")
        tuner = _new(folder, trials, seed)
    results = tuner.fit()
    (folder / "final.json").write_text(json.dumps({_trial(result): _epochs(result) for result in results}))
    losses = [result.metrics["val_loss"] for result in results if result.metrics and "val_loss" in result.metrics]
    (folder / "best.json").write_text(json.dumps({"best": min(losses), "errors": results.num_errors}))


def _new(folder: Path, trials: int, seed: int) -> tune.Tuner:
    """The search of examples/digits/study.yaml in Ray Tune's words."""
    space = {
        "learning_rate": tune.loguniform(1e-3, 1.0),
        "l2": tune.loguniform(1e-6, 1e-2),
        "momentum": tune.uniform(0.0, 0.95),
        "hidden": tune.lograndint(16, 256),
        "layers": tune.randint(1, 4),
        "batch_size": tune.choice([16, 32, 64, 128]),
        "activation": tune.choice(["relu", "tanh"]),
    }
    config = tune.TuneConfig(
        metric="val_loss",
        mode="min",
        search_alg=OptunaSearch(seed=seed),
        scheduler=ASHAScheduler(time_attr="epoch", max_t=MAX_EPOCHS, grace_period=1, reduction_factor=3),
        num_samples=trials,
        max_concurrent_trials=2 if ADDRESS == "local" else None,
        reuse_actors=True,
    )
    failures = tune.FailureConfig(max_failures=0 if ADDRESS == "local" else -1)
    run = tune.RunConfig(name=NAME, storage_path=str(folder), verbose=0, failure_config=failures)
    return tune.Tuner(train_in_ray_tune, param_space=space, tune_config=config, run_config=run)


def _trial(result: Any) -> str:
    return str((result.metrics or {}).get("trial_id") or Path(result.path).name.split("_")[3])


def _epoch(result: Any) -> int:
    return int((result.metrics or {}).get("epoch", 0))


def _epochs(result: Any) -> list[int]:
    frame = result.metrics_dataframe
    return [] if frame is None or "epoch" not in frame else [int(epoch) for epoch in frame["epoch"]]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
