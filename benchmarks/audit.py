"""What the log of a study says after kills: what was lost, what was done twice, and how far trials were set back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tune_tasks.events import Checkpointed, Event, Planned, Promoting, Reports, Started
from tune_tasks.store import open_objects
from tune_tasks.store.log import StudyLog

LOSSES = (
    "acknowledged segments lost or changed",
    "reports never recorded",
    "trials forgotten",
    "trials sampled twice",
    "step keys with two results",
    "epochs re-run before a recorded checkpoint",
    "studies that ended otherwise than never killed",
)
"""The figures that must be 0."""


class Audit:
    """Follows one study from kill to kill."""

    def __init__(self, url: Path) -> None:
        self.url, self.lost, self.unknown = url, 0, 0
        self._segments: dict[str, bytes] = {}

    @property
    def known(self) -> int:
        """How many segments the last look saw."""
        return len(self._segments)

    def look(self, trained: list[tuple[str, int]]) -> None:
        """Compares the log with what it was, and with what has been trained; after a kill."""
        now = segments(self.url)
        self.lost += sum(now.get(name) != data for name, data in self._segments.items())
        self._segments = now
        self.unknown += len(set(trained) - set(_reported(self._events()))) if now else len(set(trained))

    def conclude(self, trained: list[tuple[str, int]]) -> Counter[str]:
        """The figures of a study that came to its end."""
        events = self._events()
        reported = _reported(events)
        sampled = Counter(p.number for event in events if isinstance(event, Planned) for p in event.proposals)
        keys = Counter(e.key for e in events if hasattr(e, "key") and not isinstance(e, Promoting))
        return Counter(
            {
                "trials": len(sampled),
                "epochs trained": len(trained),
                "acknowledged segments lost or changed": self.lost,
                "reports unknown after a kill": self.unknown,
                "reports never recorded": len(set(trained) - set(reported)),
                "trials forgotten": len({trial for trial, _ in trained} - {str(number) for number in sampled}),
                "trials sampled twice": sum(count > 1 for count in sampled.values()),
                "step keys with two results": sum(count > 1 for count in keys.values()),
                "epochs re-run": len(trained) - len(set(trained)),
                "epochs re-run before a recorded checkpoint": _beyond(events),
            }
        )

    def _events(self) -> list[Event]:
        log = StudyLog(open_objects(str(self.url)))
        return [event for segment in log.segments() for event in segment.events]


def segments(url: Path) -> dict[str, bytes]:
    """Every segment by its name."""
    return {path.name: path.read_bytes() for path in (url / "log").glob("*.jsonl")}


def outcome(url: Path) -> list[tuple[Any, ...]]:
    """How each trial ended, without how often it was interrupted on the way."""
    state = StudyLog(open_objects(str(url))).load()
    return [(t.number, sorted(t.params.items()), t.state, t.value, t.budget) for t in state.trials]


def _reported(events: list[Event]) -> list[tuple[str, int]]:
    return [
        (str(trial), step)
        for event in events
        if isinstance(event, Reports)
        for trial, step in zip(event.trial, event.step, strict=True)
    ]


def _beyond(events: list[Event]) -> int:
    """Counts reports of steps for which there was a recorded checkpoint already when their attempt began."""
    saved: Counter[int] = Counter()
    floor: dict[tuple[int, int], int] = {}
    beyond = 0
    for event in events:
        match event:
            case Started(trial=trial, attempt=attempt):
                floor[trial, attempt] = saved[trial]
            case Checkpointed(trial=trial, step=step):
                saved[trial] = max(saved[trial], step)
            case Reports():
                rows = zip(event.trial, event.attempt, event.step, strict=True)
                beyond += sum(step <= floor[trial, attempt] for trial, attempt, step in rows)
            case _:
                pass
    return beyond
