"""Studies in this process that the tests of faults disturb, and what their logs hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import tune_tasks as tt
from tests.studies import events
from tune_tasks.events import Planned, Reports
from tune_tasks.store import open_objects

Before: TypeAlias = Callable[[int, int], None]
"""What happens before a step of a trial."""

PLACES = (
    "tune_tasks.studies.open_objects",
    "tune_tasks.store.places.open_objects",
    "tune_tasks.execution.attempt.open_objects",
)
"""Where a step and a trial open the store."""


def spec_for(objective: Callable[..., Any], store: Path | str, **changes: Any) -> tt.StudySpec:
    """A study of two trials with six steps each, run in this process."""
    return tt.StudySpec(
        **{
            "name": "disturbed",
            "objective": objective,
            "metric": "loss",
            "mode": "min",
            "store": str(store),
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "sampler": {"name": "random", "seed": 7},
            "scheduler": {"name": "none", "max_budget": 6},
            "budget": {"trials": 2, "concurrency": 1},
            "retry": {"failures": 0},
            "execution": {"runner": "inline", "group_time": 1e-9},
            "promotion": {"registry": "none"},
            **changes,
        }
    )


def count_on(config: Mapping[str, Any], before: Before, size: int = 1) -> None:
    """Reports six steps, each with a checkpoint of `size` bytes; calls `before(trial, step)` first."""
    restored, step = tt.get_checkpoint(), 0
    if restored is not None:
        step = int((restored / "step").read_text())
    context = tt.get_context()
    while step < 6:
        step += 1
        before(context.trial, step)
        (context.folder / "step").write_text(str(step))
        (context.folder / "weights").write_bytes(b"w" * size)
        tt.report({"loss": (config["x"] - 0.3) ** 2 / step}, checkpoint=context.folder)


def impatient(monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Any], Any] = lambda objects: objects) -> None:
    """Has steps and trials give a store up after a moment instead of a minute."""
    for place in PLACES:
        monkeypatch.setattr(place, lambda url: wrap(open_objects(url, deadline=0.2)))


def steps(url: str) -> Counter[tuple[int, int]]:
    """How often the log holds each step of each trial."""
    return Counter(
        pair
        for event in events(url)
        if isinstance(event, Reports)
        for pair in zip(event.trial, event.step, strict=True)
    )


def sampled(url: str) -> list[int]:
    """The numbers of the trials in the order in which they were proposed."""
    return [proposal.number for event in events(url) if isinstance(event, Planned) for proposal in event.proposals]


def segments(url: str) -> dict[str, bytes]:
    """Every segment by its name."""
    return {path.name: path.read_bytes() for path in sorted(Path(url, "log").glob("*.jsonl"))}


def unfinished(url: str) -> list[str]:
    """Temporary files that somebody left behind."""
    return [str(path) for path in Path(url).rglob(".tmp-*")]
