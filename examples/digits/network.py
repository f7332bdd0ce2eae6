"""A small multilayer perceptron in numpy: what the digits study tunes, saves and serves.

It needs numpy and nothing else, so that the promoted model loads where neither tune_tasks nor scikit-learn is
installed. Weights are saved as plain arrays; no pickle is written or read.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0
FILE = "network.npz"


class Network:
    """Classifies images of 64 pixels, each 0 to 16, as one of ten digits."""

    def __init__(self, config: dict[str, Any], arrays: list[np.ndarray], momenta: list[np.ndarray], epoch: int) -> None:
        self.config, self.arrays, self.momenta, self.epoch = config, arrays, momenta, epoch

    @classmethod
    def build(cls, config: dict[str, Any]) -> Network:
        """Makes an untrained network; the same configuration gives the same weights."""
        rng = np.random.default_rng(SEED)
        sizes = [64, *[config["hidden"]] * config["layers"], 10]
        arrays = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            arrays += [rng.normal(0, np.sqrt(2 / fan_in), (fan_in, fan_out)), np.zeros(fan_out)]
        return cls(config, arrays, [np.zeros_like(array) for array in arrays], 0)

    def train_epoch(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Goes once through the data. The order depends on the epoch alone, so a resumed training is the same one."""
        order = np.random.default_rng([SEED, self.epoch]).permutation(len(images))
        for start in range(0, len(order), self.config["batch_size"]):
            rows = order[start : start + self.config["batch_size"]]
            self._descend(self._gradients(images[rows], labels[rows]))
        self.epoch += 1

    def log_probabilities(self, images: np.ndarray) -> np.ndarray:
        """The logarithm of each digit's probability, one row for each image."""
        return self._forward(images)[-1]

    def predict(self, images: Any) -> np.ndarray:
        """The most likely digit of each image; takes an array, or a data frame with a column for each pixel."""
        return self.log_probabilities(np.asarray(images, dtype=float)).argmax(axis=1)

    def save(self, folder: Path) -> None:
        """Writes everything that `load` needs, the optimiser's momenta too, so that training can go on."""
        names = {f"array{i}": array for i, array in enumerate(self.arrays)}
        names |= {f"momentum{i}": array for i, array in enumerate(self.momenta)}
        names |= {f"config.{name}": np.array(value) for name, value in self.config.items()}
        np.savez(folder / FILE, epoch=np.array(self.epoch), **names)

    def _forward(self, images: np.ndarray) -> list[np.ndarray]:
        """The input of every layer, and at the end the logarithms of the probabilities."""
        values = [images / 16.0 - 0.5]
        for layer in range(0, len(self.arrays), 2):
            values.append(values[-1] @ self.arrays[layer] + self.arrays[layer + 1])
            if layer + 2 < len(self.arrays):
                values[-1] = np.tanh(values[-1]) if self.config["activation"] == "tanh" else np.maximum(values[-1], 0)
        scores = values[-1] - values[-1].max(axis=1, keepdims=True)
        values[-1] = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return values

    def _gradients(self, images: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
        """Backpropagates the mean cross-entropy and the L2 penalty."""
        values = self._forward(images)
        delta = np.exp(values[-1])
        delta[np.arange(len(labels)), labels] -= 1
        delta /= len(labels)
        gradients: list[np.ndarray] = []
        for layer in range(len(self.arrays) - 2, -1, -2):
            inputs, weights = values[layer // 2], self.arrays[layer]
            gradients = [inputs.T @ delta + self.config["l2"] * weights, delta.sum(axis=0), *gradients]
            slope = 1 - inputs**2 if self.config["activation"] == "tanh" else inputs > 0
            delta = (delta @ weights.T) * slope
        return gradients

    def _descend(self, gradients: list[np.ndarray]) -> None:
        length = np.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
        rate = self.config["learning_rate"] / max(1.0, length)  # a long step would overflow where the rate is high
        for i, gradient in enumerate(gradients):
            self.momenta[i] = self.config["momentum"] * self.momenta[i] - rate * gradient
            self.arrays[i] = self.arrays[i] + self.momenta[i]


def load(folder: Path) -> Network:
    """Reads a network from a checkpoint folder: to train on, or to predict. The study names it as its loader."""
    with np.load(Path(folder) / FILE, allow_pickle=False) as file:
        config = {name.removeprefix("config."): file[name].item() for name in file.files if name.startswith("config.")}
        count = sum(name.startswith("array") for name in file.files)
        arrays = [file[f"array{i}"] for i in range(count)]
        momenta = [file[f"momentum{i}"] for i in range(count)]
        return Network(config, arrays, momenta, int(file["epoch"]))
