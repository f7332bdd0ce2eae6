"""Small studies for the tests: an objective file and a spec beside it, and a look at the log they leave."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from tune_tasks.events import Discarded, Event, Reports
from tune_tasks.store import open_objects
from tune_tasks.store.log import StudyLog

COMMAND = [sys.executable, "-m", "tune_tasks"]

OBJECTIVE = '''
import json, os, time
from pathlib import Path

import tune_tasks as tt


def train(config):
    """Moves a weight towards config["x"]; checkpoints every step, so that a resumed run equals an uninterrupted one."""
    weight, start = 0.0, 0
    checkpoint = tt.get_checkpoint()
    if checkpoint is not None:
        saved = json.loads((checkpoint / "weight.json").read_text())
        weight, start = saved["weight"], saved["step"]
    context = tt.get_context()
    for step in range(start, context.max_budget):
        time.sleep(float(os.environ.get("STEP_SECONDS", "0")))
        weight += 0.5 * (config["x"] - weight)
        (context.folder / "weight.json").write_text(json.dumps({"weight": weight, "step": step + 1}))
        print("trial", context.trial, "step", step + 1)
        tt.report({"loss": (weight - 0.7) ** 2, "weight": weight}, checkpoint=context.folder)


def once(config):
    return {"loss": (config["x"] - 0.3) ** 2}


class Model:
    def __init__(self, folder):
        self.weight = json.loads((Path(folder) / "weight.json").read_text())["weight"]

    def predict(self, rows):
        return [self.weight * row for row in rows]


def load(folder):
    return Model(folder)


def evaluate(folder):
    return {"test_loss": (load(folder).weight - 0.7) ** 2}
'''

SPEC: dict[str, Any] = {
    "name": "small",
    "objective": "objective:train",
    "metric": "loss",
    "mode": "min",
    "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
    "sampler": {"name": "random", "seed": 7},
    "scheduler": {"name": "asha", "min_budget": 1, "max_budget": 9, "reduction_factor": 3},
    "budget": {"trials": 9, "concurrency": 1},
    "execution": {"runner": "inline", "batch": 4},
    "promotion": {"registry": "none"},
}


def write_study(folder: Path, **changes: Any) -> Path:
    """Writes objective.py and study.yaml into a folder and returns the path of the spec; its store is beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "objective.py").write_text(OBJECTIVE, encoding="utf-8")
    spec = {**SPEC, "store": str(folder / "studies"), **changes}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def events(url: str) -> list[Event]:
    """Every event of a study's log, in order."""
    return [event for segment in StudyLog(open_objects(url)).segments() for event in segment.events]


_OWN = {
    "time",
    "created",
    "study",
    "study_id",
    "folder",
    "owner",
    "worker",
    "node",
    "digest",
    "path",
    "uri",
    "position",
}


def story(url: str) -> list[dict[str, Any]]:
    """What a log tells without what must differ between two runs: times, identities, paths, grouping of reports."""
    told: list[dict[str, Any]] = []
    for event in events(url):
        if isinstance(event, Reports):
            told += [
                {"type": "report", "trial": trial, "step": event.step[row]}
                | {name: column[row] for name, column in event.metrics.items()}
                for row, trial in enumerate(event.trial)
            ]
        elif not isinstance(event, Discarded):  # when checkpoints go depends on how facts were grouped
            told.append(_without_identity(event.model_dump(mode="json")))
    return told


def _without_identity(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_identity(inner) for name, inner in value.items() if name not in _OWN}
    if isinstance(value, list):
        return [_without_identity(inner) for inner in value]
    if isinstance(value, str):
        return re.sub(r"(ckpt/\d+/\d+/\d+)-[0-9a-f]+", r"\1", value)
    return value
