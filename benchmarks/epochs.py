"""What `chaos.py` trains: the digits example, or a study that costs nothing, for tune_tasks and for Ray Tune.

Each epoch is noted in a side file, synced, before it is reported: it tells what was really trained, whoever forgets it.
`CHAOS_NOTES` in the environment is its path. `CHAOS_EPOCH_SECONDS` makes each epoch as long as a real one.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

NOTES = "CHAOS_NOTES"
MAX_EPOCHS = 27


def note(trial: str, epoch: int) -> None:
    """Adds a line to the side file that survives a kill at the next instruction."""
    time.sleep(float(os.environ.get("CHAOS_EPOCH_SECONDS", "0")))
    file = os.open(os.environ[NOTES], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(file, f"{trial} {epoch}\n".encode())
    os.fsync(file)
    os.close(file)


def noted(path: Path) -> list[tuple[str, int]]:
    """Reads the side file: which epochs of which trials were trained, in order."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(trial, int(epoch)) for trial, epoch in (line.split() for line in lines)]


def train(config: dict[str, Any]) -> None:
    """The digits example, for tune_tasks."""
    from network import Network, load
    from objective import train_epoch

    import tune_tasks as tt

    checkpoint, context = tt.get_checkpoint(), tt.get_context()
    network = Network.build(config) if checkpoint is None else load(checkpoint)
    while network.epoch < context.max_budget:
        metrics = train_epoch(network)
        network.save(context.folder)
        note(str(context.trial), network.epoch)
        tt.report(metrics, checkpoint=context.folder)


def count(config: dict[str, Any]) -> None:
    """A weight that moves towards a number, for tune_tasks: as many epochs, at no cost."""
    import tune_tasks as tt

    checkpoint, context = tt.get_checkpoint(), tt.get_context()
    weight, epoch = json.loads((checkpoint / "weight").read_text()) if checkpoint else (0.0, 0)
    while epoch < context.max_budget:
        weight, epoch = weight + (config["learning_rate"] - weight) / 2, epoch + 1
        (context.folder / "weight").write_text(json.dumps([weight, epoch]))
        note(str(context.trial), epoch)
        tt.report({"val_loss": (weight - 0.3) ** 2}, checkpoint=context.folder)


def train_in_ray_tune(config: dict[str, Any]) -> None:
    """The digits example, for Ray Tune."""
    from network import Network, load
    from objective import train_epoch
    from ray import tune

    checkpoint, trial = tune.get_checkpoint(), tune.get_context().get_trial_id()
    network = Network.build(config) if checkpoint is None else load(Path(checkpoint.path))
    while network.epoch < MAX_EPOCHS:
        metrics = train_epoch(network)
        with tempfile.TemporaryDirectory() as folder:
            network.save(Path(folder))
            note(str(trial), network.epoch)
            tune.report({**metrics, "epoch": network.epoch}, checkpoint=tune.Checkpoint.from_directory(folder))


def nap(config: dict[str, Any]) -> None:
    """Trains nothing, and reports ten times in `CHAOS_EPOCH_SECONDS` each."""
    import tune_tasks as tt

    for step in range(10):
        time.sleep(float(os.environ.get("CHAOS_EPOCH_SECONDS", "0")))
        tt.report({"loss": config["x"] / (step + 1)})
