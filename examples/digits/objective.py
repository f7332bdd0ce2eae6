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
DRIFTED = "drifted"


@functools.cache  # a warm worker runs many trials and reads the data once
def data(version: str | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels to train on, to choose by, and held out for the end; always the same split.

    The version `drifted` is what another camera might see: a pixel lower, fainter, and with noise.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    if version == DRIFTED:
        lower = np.roll(images.reshape(-1, 8, 8), 1, axis=1).reshape(-1, 64)
        noise = np.random.default_rng(SEED).normal(0, 2, images.shape)
        images = np.clip(0.6 * lower + noise, 0, 16)
    order = np.random.default_rng(SEED).permutation(len(images))
    parts = {"train": order[:1097], "validation": order[1097:1447], "test": order[1447:]}
    return {name: (images[rows], labels[rows]) for name, rows in parts.items()}


def train(config: dict[str, Any]) -> None:
    """The objective: what tune_tasks runs for each trial, on from the last checkpoint if there is one."""
    checkpoint = tt.get_checkpoint()
    network = Network.build(config) if checkpoint is None else load(checkpoint)
    context = tt.get_context()
    parts = data(context.data)
    if context.final:  # nothing is chosen any more, so the images to choose by are for training too
        both = zip(parts["train"], parts["validation"], strict=True)
        parts = {**parts, "train": tuple(np.concatenate(pair) for pair in both)}
    while network.epoch < context.max_budget:
        metrics = train_epoch(network, parts)
        network.save(context.folder)
        tt.report(metrics, checkpoint=context.folder)


def train_epoch(network: Network, parts: dict[str, Any] | None = None) -> dict[str, float]:
    """Trains one more epoch and returns the validation metrics."""
    from threadpoolctl import threadpool_limits

    parts = parts or data()
    with threadpool_limits(1):  # the matrices are small: more threads cost more than they save
        network.train_epoch(*parts["train"])
        images, labels = parts["validation"]
        log_probabilities = network.log_probabilities(images)
    right = log_probabilities.argmax(axis=1) == labels
    return {
        "val_loss": -float(log_probabilities[np.arange(len(labels)), labels].mean()),
        "val_accuracy": float(right.mean()),
    }


def evaluate(folder: Path, **given: Any) -> tt.Evaluation:
    """The held-out metrics of a model, image by image, and which digit each is: so that they can be compared in pairs.

    The study names it as what to measure the best trials and the champion with; `data` is the study's.
    """
    images, labels = data(given.get("data"))["test"]
    log_probabilities = load(folder).log_probabilities(images)
    return tt.Evaluation(
        examples={
            "test_loss": -log_probabilities[np.arange(len(labels)), labels],
            "test_accuracy": log_probabilities.argmax(axis=1) == labels,
        },
        slices={"digit": labels},
    )


def example() -> np.ndarray:
    """Images for a model to predict: its time is taken with them, and an endpoint is checked with them."""
    return data()["test"][0][:8]


if __name__ == "__main__":
    plain = Network.build(DEFAULT)
    while plain.epoch < EPOCHS:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in train_epoch(plain).items())
        print(f"epoch {plain.epoch:2d}: {shown}")
    with tempfile.TemporaryDirectory() as scratch:
        plain.save(Path(scratch))
        print(f"test_accuracy {np.mean(evaluate(Path(scratch)).examples['test_accuracy']):.4f}")
