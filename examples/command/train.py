"""A training script that knows nothing of tune_tasks: logistic regression on two clouds of points, by gradient descent.

python examples/command/train.py --lr 0.5 --l2 0.001 --epochs 20
"""

import argparse
import json
import math
import random


def points(seed: int, count: int) -> list[tuple[float, float, int]]:
    """Two clouds that overlap: x, y and which one."""
    drawn = random.Random(seed)
    return [(drawn.gauss(2.0 * (i % 2), 1), drawn.gauss(i % 2, 1), i % 2) for i in range(count)]


def probability(weights: list[float], x: float, y: float) -> float:
    """That a point belongs to the second cloud."""
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, weights[0] + weights[1] * x + weights[2] * y))))


def loss(weights: list[float], data: list[tuple[float, float, int]]) -> float:
    """The mean cross-entropy."""
    chances = (probability(weights, x, y) if label else 1 - probability(weights, x, y) for x, y, label in data)
    return -sum(math.log(max(chance, 1e-12)) for chance in chances) / len(data)


def main() -> None:
    """Trains, and prints one line of JSON for each epoch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--l2", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=9)
    given = parser.parse_args()
    train, validation = points(1, 200), points(2, 200)
    weights = [0.0, 0.0, 0.0]
    print(f"training with {given}")
    for epoch in range(1, given.epochs + 1):
        for x, y, label in train:
            error = probability(weights, x, y) - label
            for place, value in enumerate((1.0, x, y)):
                weights[place] -= given.lr * (error * value + given.l2 * weights[place])
        print(json.dumps({"epoch": epoch, "loss": loss(weights, train), "val_loss": loss(weights, validation)}))


if __name__ == "__main__":
    main()
