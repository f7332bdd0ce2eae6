"""The digits example trains, resumes exactly, loads and is what its spec says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tune_tasks import load_spec
from tune_tasks.session import Context, Session, TrialStopped, activate

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "digits"


class Attempt:
    """Keeps what an attempt reports and saves in a folder, and hands the last checkpoint to the next attempt."""

    def __init__(self, folder: Path, config: dict[str, Any], max_budget: int) -> None:
        self.saved = folder / "saved"
        own = folder / "own"
        own.mkdir(parents=True, exist_ok=True)
        self.context = Context("digits", 0, 1, config, "worker", max_budget, lambda: own)
        self.rows: list[dict[str, float]] = []
        self.step = 0

    def row(self, step: int, time: float, metrics: dict[str, float]) -> None:
        self.rows.append(metrics)

    def save(self, step: int, folder: Path) -> None:
        shutil.rmtree(self.saved, ignore_errors=True)
        shutil.copytree(folder, self.saved)
        self.step = step

    def restore(self) -> tuple[int, Path] | None:
        return (self.step, self.saved) if self.step else None


@pytest.fixture(scope="module")
def objective() -> Iterator[ModuleType]:
    import importlib

    sys.path.insert(0, str(EXAMPLE))
    for name in ("objective", "network"):
        sys.modules.pop(name, None)
    yield importlib.import_module("objective")
    sys.path.remove(str(EXAMPLE))
    for name in ("objective", "network"):
        sys.modules.pop(name, None)


def train(objective: ModuleType, attempt: Attempt, budget: int) -> None:
    activate(Session(attempt, "val_loss", budget))
    try:
        with pytest.raises(TrialStopped):
            objective.train(attempt.context.config)
    finally:
        activate(None)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_resumed_training_gives_exactly_what_an_uninterrupted_one_gives(
    objective: ModuleType, tmp_path: Path, activation: str
) -> None:
    config = {**objective.DEFAULT, "activation": activation, "layers": 2}
    whole = Attempt(tmp_path / "whole", config, 27)
    train(objective, whole, 4)
    parts = Attempt(tmp_path / "parts", config, 27)
    for budget in (1, 3, 4):
        train(objective, parts, budget)
    assert parts.rows == whole.rows
    assert len(whole.rows) == 4
    a, b = (np.load(attempt.saved / "network.npz", allow_pickle=False) for attempt in (whole, parts))
    assert sorted(a.files) == sorted(b.files)
    assert all(np.array_equal(a[name], b[name]) for name in a.files)


def test_training_learns_and_what_is_saved_can_be_evaluated_and_predicts(objective: ModuleType, tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, objective.DEFAULT, 8)
    train(objective, attempt, 8)
    assert attempt.rows[-1]["val_loss"] < attempt.rows[0]["val_loss"] / 2
    measured = objective.evaluate(attempt.saved)
    assert np.mean(measured.examples["test_accuracy"]) > 0.9
    images, labels = objective.data()["test"]
    predicted = objective.load(attempt.saved).predict(images)
    assert np.array_equal(predicted == labels, measured.examples["test_accuracy"])
    assert np.array_equal(measured.slices["digit"], labels)
    assert len(objective.load(attempt.saved).predict(objective.example())) == 8


def test_the_parts_of_the_data_do_not_overlap_and_are_always_the_same(objective: ModuleType) -> None:
    parts = objective.data()
    assert {name: len(labels) for name, (_, labels) in parts.items()} == {"train": 1097, "validation": 350, "test": 350}
    seen = np.concatenate([images.sum(axis=1) * 1000 + images[:, 20] for images, _ in parts.values()])
    objective.data.cache_clear()
    again = np.concatenate([images.sum(axis=1) * 1000 + images[:, 20] for images, _ in objective.data().values()])
    assert np.array_equal(seen, again)


def test_a_model_is_trained_and_measured_on_the_data_that_its_study_names(
    objective: ModuleType, tmp_path: Path
) -> None:
    accuracy = {}
    for trained in (None, "drifted"):
        attempt = Attempt(tmp_path / str(trained), objective.DEFAULT, 4)
        attempt.context = replace(attempt.context, data=trained)
        train(objective, attempt, 4)
        for asked in (None, "drifted"):
            measured = objective.evaluate(attempt.saved, data=asked, seed=0)
            accuracy[trained, asked] = np.mean(measured.examples["test_accuracy"])
    assert accuracy[None, None] > 0.9
    assert accuracy["drifted", "drifted"] > accuracy[None, "drifted"] + 0.1
    assert np.array_equal(objective.data("drifted")["test"][1], objective.data()["test"][1])


def test_the_final_training_has_the_images_to_choose_by_too(
    objective: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, trains = [], objective.Network.train_epoch

    def train_epoch(network: Any, images: Any, labels: Any) -> None:
        seen.append(len(labels))
        trains(network, images, labels)

    monkeypatch.setattr(objective.Network, "train_epoch", train_epoch)
    for final in (False, True):
        attempt = Attempt(tmp_path / str(final), objective.DEFAULT, 1)
        attempt.context = replace(attempt.context, final=final)
        train(objective, attempt, 1)
    assert seen == [1097, 1447]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("unit", [0.0, 1.0])
def test_the_corners_of_the_space_report_finite_numbers(objective: ModuleType, unit: float, activation: str) -> None:
    space = load_spec(EXAMPLE / "study.yaml").space
    config = space.choose(lambda _, parameter: parameter.from_unit(unit))
    network = objective.Network.build({**config, "activation": activation, "batch_size": 16})
    with np.errstate(all="raise", under="ignore"):
        for _ in range(3):
            assert all(np.isfinite(value) for value in objective.train_epoch(network).values())


def test_the_spec_asks_for_what_the_example_is_to_show() -> None:
    spec = load_spec(EXAMPLE / "study.yaml")
    kinds = {(type(p).__name__, getattr(p, "log", False)) for p in spec.space.root.values()}
    assert {("Float", True), ("Float", False), ("Int", True), ("Categorical", False)} <= kinds
    assert len(spec.space) >= 5
    assert spec.budget.trials >= 60
    assert spec.scheduler.options == {"min_budget": 1, "max_budget": 27, "reduction_factor": 3}


def test_the_script_trains_one_configuration_by_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "objective.py")], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 28
    assert float(lines[-1].removeprefix("test_accuracy ")) > 0.9
    assert done.stderr == ""
