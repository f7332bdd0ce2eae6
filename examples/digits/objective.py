"""The digits example: train a small network on scikit-learn's bundled digits, epoch by epoch.

`tune-tasks run examples/digits/study.yaml` searches for its best configuration. `python examples/digits/objective.py`
trains one, without any of it.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from network import SEED, Network, load

import tune_tasks as tt

DEFAULT = {
    "learning_rate": 0.05,
    "l2": 1e-4,
    "momentum": 0.9,
    "hidden": 64,
    "layers": 1,
    "batch_size": 32,
    "activation": "relu",
}
EPOCHS = 27


@functools.cache  # a warm worker runs many trials and reads the data once
def data() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels to train on, to choose by, and held out for the end; always the same split."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(images))
    parts = {"train": order[:1097], "validation": order[1097:1447], "test": order[1447:]}
    return {name: (images[rows], labels[rows]) for name, rows in parts.items()}


def train(config: dict[str, Any]) -> None:
    """The objective: what tune_tasks runs for each trial, on from the last checkpoint if there is one."""
    checkpoint = tt.get_checkpoint()
    network = Network.build(config) if checkpoint is None else load(checkpoint)
    context = tt.get_context()
    while network.epoch < context.max_budget:
        metrics = train_epoch(network)
        network.save(context.folder)
        tt.report(metrics, checkpoint=context.folder)


def train_epoch(network: Network) -> dict[str, float]:
    """Trains one more epoch and returns the validation metrics."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the matrices are small: more threads cost more than they save
        network.train_epoch(*data()["train"])
        images, labels = data()["validation"]
        log_probabilities = network.log_probabilities(images)
    right = log_probabilities.argmax(axis=1) == labels
    return {
        "val_loss": -float(log_probabilities[np.arange(len(labels)), labels].mean()),
        "val_accuracy": float(right.mean()),
    }


def evaluate(folder: Path) -> dict[str, float]:
    """The held-out metrics of a checkpoint; the study names it as what to evaluate the winner with."""
    images, labels = data()["test"]
    return {"test_accuracy": float((load(folder).predict(images) == labels).mean())}


if __name__ == "__main__":
    plain = Network.build(DEFAULT)
    while plain.epoch < EPOCHS:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in train_epoch(plain).items())
        print(f"epoch {plain.epoch:2d}: {shown}")
    with tempfile.TemporaryDirectory() as scratch:
        plain.save(Path(scratch))
        print(f"test_accuracy {evaluate(Path(scratch))['test_accuracy']:.4f}")
