"""Tune the digits example with Prefect, and hand the promoted model to the task that comes next.

`python flows/digits.py` runs it against the Prefect that is configured; run again, it goes on where the study stands.
To make it yours, change STUDY, and what `check` does with the model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task

from tune_tasks_prefect import evaluate_and_prune, launch_trials, promote_best, sample

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "digits"
STUDY = EXAMPLE / "study.yaml"


@task
def check(model: dict[str, Any]) -> float:
    """Loads the published model as the process that serves it will, and measures it on the test images."""
    sys.path.insert(0, str(EXAMPLE))
    from network import load
    from objective import data

    folder = Path(model["path"])
    promised = json.loads((folder / "model.json").read_text())["evaluation"]["test_accuracy"]
    images, labels = data()["test"]
    accuracy = float((load(folder / "data").predict(images) == labels).mean())
    if abs(accuracy - promised) > 1e-9:
        raise ValueError(f"{folder} has an accuracy of {accuracy:.4f} here, and was promoted with {promised:.4f}")
    get_run_logger().info("%s reads %.1f%% of the test images right", model["uri"], 100 * accuracy)
    return accuracy


@flow(name="digits")
def digits(study: str = str(STUDY)) -> float | None:
    """Searches in rounds until the study is done, promotes the best model, and checks it if it is the new champion."""
    done = False
    while not done:
        batch = sample(study)
        outcome = launch_trials(study, batch)
        done = evaluate_and_prune(study, outcome)["done"]
    model = promote_best(study)
    return check(model) if model["promoted"] else None


if __name__ == "__main__":
    digits()
