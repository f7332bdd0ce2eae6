"""A whole small study on the model store: the real steps, driver, runner, checkpoints and promotion, one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import tune_tasks as tt
from tests.simulation.determined import Clock
from tune_tasks.spec import StudySpec
from tune_tasks.store import Copied, Entry, Objects, StudyLog
from tune_tasks.store.aside import AtOnce
from tune_tasks.store.retry import Retrying

OPENERS = ("studies", "execution.attempt", "promotion.championship", "retraining", "promotion.measuring")
"""Where the engine opens objects by their URL."""


class Below:
    """The objects below a folder of a store: the store has several studies, and the ledgers beside them."""

    lanes = 1

    def __init__(self, objects: Objects, url: str) -> None:
        self._objects, self._url = objects, url
        self._folder = f"{url.removeprefix('model://shared/')}/"

    @property
    def url(self) -> str:
        return self._url

    def create(self, key: str, data: bytes) -> bool:
        return self._objects.create(self._folder + key, data)

    def read(self, key: str) -> bytes | None:
        return self._objects.read(self._folder + key)

    def replace(self, key: str, data: bytes) -> None:
        self._objects.replace(self._folder + key, data)

    def entries(self, prefix: str) -> list[Entry]:
        found = self._objects.entries(self._folder + prefix)
        return [entry._replace(key=entry.key.removeprefix(self._folder)) for entry in found]

    def unfinished(self, before: float, *, remove: bool = False) -> list[Entry]:
        return self._objects.unfinished(before, remove=remove)

    def list(self, prefix: str) -> list[str]:
        return [key.removeprefix(self._folder) for key in self._objects.list(self._folder + prefix)]

    def delete(self, key: str) -> None:
        self._objects.delete(self._folder + key)

    def upload(self, source: Path, key: str) -> Copied:
        return self._objects.upload(source, self._folder + key)

    def download(self, key: str, target: Path, size: int) -> Copied | None:
        return self._objects.download(self._folder + key, target, size)


def train(config: dict[str, Any]) -> None:
    """Halves a loss with each step and saves it; one trial always fails at once, another one at its second step."""
    loss, start = config["x"], 0
    checkpoint = tt.get_checkpoint()
    if checkpoint is not None:
        loss, start = (float(text) for text in (checkpoint / "loss.txt").read_text().split())
    folder = tt.get_context().folder
    for step in range(int(start) + 1, tt.get_context().max_budget + 1):
        if step == (1 if config["x"] > 0.85 else 2 if 0.7 < config["x"] < 0.8 else 0):
            raise ArithmeticError(f"no step {step}")
        loss = loss / 2 + (0.1 if config["n"] == 2 else 0.0)
        (folder / "loss.txt").write_text(f"{loss!r} {step}")
        tt.report({"loss": loss, "twice": 2 * loss}, checkpoint=folder)


def spec(**changes: Any) -> StudySpec:
    """Six trials in two or three rounds; commits by count, as a commit by time would not be the same twice."""
    given: dict[str, Any] = {
        "name": "study",
        "store": "model://shared",
        "objective": train,
        "metric": "loss",
        "mode": "min",
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}, "n": {"type": "categorical", "choices": [1, 2]}},
        "sampler": {"name": "random", "seed": 5},
        "scheduler": {"name": "asha", "min_budget": 1, "max_budget": 4, "reduction_factor": 2},
        "budget": {"trials": 6, "concurrency": 1},
        "retry": {"failures": 1},
        "promotion": {"registry": "none"},
    }
    execution = {"runner": "inline", "batch": 4, "group_time": 3600, "group_rows": 2, **changes.pop("execution", {})}
    return StudySpec(**{**given, "execution": execution, **changes})


class Acknowledging(StudyLog):
    """A log that keeps what its callers were told is in it: (number, events). Its snapshots come at once."""

    acknowledged: list[tuple[int, tuple[Any, ...]]]

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects, aside=AtOnce())

    def create(self, event: Any, *options: Any, **named: Any) -> bool:
        return self._kept([event], super().create(event, *options, **named))

    def commit(self, events: Any, **options: Any) -> bool:
        return self._kept(events, super().commit(events, **options))

    def _kept(self, events: Any, landed: bool) -> bool:
        if landed:
            self.acknowledged.append((self.head, tuple(events)))
        return landed


def opened(objects: Objects, url: str) -> Objects:
    """The study itself, or a ledger beside it."""
    return Below(objects, url) if url.removeprefix("model://shared/").startswith("_") else objects


@contextmanager
def process(objects: Objects, acknowledged: list[Any], log: type[StudyLog] = Acknowledging) -> Iterator[None]:
    """What is inside is a process of its own: whatever URL it opens is this store."""
    kind = type("Log", (log,), {"acknowledged": acknowledged})
    with ExitStack() as stack:
        for module in OPENERS:
            stack.enter_context(patch(f"tune_tasks.{module}.open_objects", lambda url: opened(objects, url)))
        stack.enter_context(patch("tune_tasks.studies.StudyLog", kind))
        yield


def patient(objects: Objects, clock: Clock) -> Objects:
    """A store as `open_objects` gives it: calls are repeated, by a clock that costs no time."""
    return Retrying(objects, 60, clock=clock, sleep=clock.sleep)


def go_on(study: tt.Study, told: Callable[[str, Any], None] = lambda key, result: None) -> None:
    """Runs a study from wherever it stands to its promotion; `told` hears the result of each step."""
    while not study.refresh().done:
        batch = tt.sample(study)
        told(f"{batch.id}/sample", batch)
        told(f"{batch.id}/launch", tt.launch_trials(study, batch))
        told(f"{batch.id}/evaluate", tt.evaluate_and_prune(study, batch))
    told("promote", tt.promote_best(study))
