"""A finished study whose models measure something else on held-out data than they reported; and ways to look at it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import tune_tasks as tt
from tests.studies import events, write_study

MEASURING = '''

TARGETS = [0.5 + 0.002 * (n % 7) for n in range(40)]


def measure(folder, seed, data):
    """The squared error of each of 40 examples: trial 2 is best at it, which is third by its reports."""
    with open(Path(__file__).with_name("calls.txt"), "a") as file:
        file.write(f"{load(folder).weight} {seed} {data}\\n")
    rows = [(load(folder).weight - target) ** 2 for target in TARGETS]
    return tt.Evaluation(examples={"error": rows}, slices={"kind": ["a"] * 20 + ["b"] * 20})


def killed_at_third(folder, seed, data):
    calls = Path(__file__).with_name("calls.txt")
    if calls.exists() and len(calls.read_text().splitlines()) == 2:
        with open(calls, "a") as file:
            file.write("killed\\n")
        raise KeyboardInterrupt
    return measure(folder, seed, data)


def more_examples(folder):
    return tt.Evaluation(examples={"error": [1.0] * int(100 * load(folder).weight)})


def ours(challenger, champion):
    return False, f"size {challenger.size} of {challenger.model} with x {challenger.params['x']:.2f}"


def input_rows():
    return [1.0, 2.0]
'''
PARAMS = [0.9, 0.72, 0.52, 0.1]
"""What the four trials try; their weights move towards it, and they report the distance to 0.7."""


def study_at(
    folder: Path,
    name: str = "small",
    *,
    store: str | None = None,
    start: list[dict[str, float]] | None = None,
    **promotion: Any,
) -> tt.Study:
    """A finished study of four trials, whose last checkpoints have weights near 0.9, 0.72, 0.52 and 0.1."""
    spec = write_study(
        folder,
        name=name,
        sampler={"name": "random", "seed": 1},
        scheduler={"name": "none", "max_budget": 9},
        start=start or [{"x": x} for x in PARAMS],
        budget={"trials": len(start or PARAMS), "concurrency": 1},
        store=store or str(folder / "studies"),
        data="data of May",
        promotion={
            "registry": "none",
            "model": "small",
            "owner": "us",
            "loader": "objective:load",
            "evaluate": "objective:measure",
            "metric": "error",
            **promotion,
        },
    )
    with (folder / "objective.py").open("a", encoding="utf-8") as file:
        file.write(MEASURING)
    study = tt.open_study(spec)
    return tt.tune(study)


def moved(folder: Path, target: Path) -> Path:
    """A copy of a folder with its study, to be opened by its spec; what was promoted before is the original's."""
    copy = Path(shutil.copytree(folder, target))
    spec = copy / "study.yaml"
    spec.write_text(spec.read_text().replace(str(folder), str(copy)))
    return copy


def again(folder: Path, **promotion: Any) -> tt.Study:
    """The study with another promotion section."""
    return study_of(folder / "study.yaml", promotion)


def study_of(spec: Path, promotion: dict[str, Any]) -> tt.Study:
    changed = {f"promotion.{name}": value for name, value in promotion.items()}
    return tt.open_study(tt.load_spec(spec, changed), amend=True)


def told(study: tt.Study, kind: type) -> list[Any]:
    return [event for event in events(study.url) if isinstance(event, kind)]


def calls(folder: Path) -> list[str]:
    return (folder / "calls.txt").read_text().splitlines()
