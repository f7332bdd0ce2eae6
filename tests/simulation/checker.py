"""Whether a log kept its promises, by its bytes alone: a second reading that shares no code with the first.

I1 what was acknowledged is in the log, once; I2 a step key has one result; I3 a view is a prefix of the log; I4 a
driver writes nothing after a newer one opened; I5 the budget is counted once. (I6, that a seed gives the same bytes
again, takes two runs.)
"""

from __future__ import annotations

import hashlib
import json
from copy import copy
from typing import Any

from tests.store.happenings import told
from tune_tasks.events import decode, encode
from tune_tasks.store.segment import segment_key
from tune_tasks.study import StudyState
from tune_tasks.testing.faults import Call, SharedObjects

PARTS = {
    "evaluated": "/{model}/{seed}",
    "promoting": "/decision",
    "approved": "/approval",
    "deploying": "/intent",
}
"""What a part of a step is called below the step's key."""

DRIVERS = {"opened", "started", "reports", "checkpointed", "ended", "pruned", "launched"}
"""What only a driver may write."""


class Violation(AssertionError):
    """A promise was broken; its text begins with which."""


def demand(promise: str, *, kept: bool, why: object) -> None:
    if not kept:
        raise Violation(f"{promise}: {why}")


class Checker:
    """Follows a log as it grows; with `views` it remembers the state after each segment, to compare readers with."""

    def __init__(self, shared: SharedObjects, *, views: bool = False) -> None:
        self.shared, self.objects, self.views = shared, shared.objects, views
        self.segments: list[bytes] = []
        self.lines: dict[bytes, int] = {}
        self.keys: dict[str, int] = {}
        self.epoch = 0
        self.attempts: list[int] = []
        self.running: dict[int, int] = {}
        self.curves: list[list[float]] = []
        self.state = StudyState()
        self._seen: dict[int, dict[str, Any]] = {}
        self._changes = 0

    def follow(self) -> None:
        """Takes in what is new, and looks whether what was there still is."""
        if self._changes == self.shared.changes:
            return
        self._changes = self.shared.changes
        for number, data in enumerate(self.segments, 1):
            now = self.objects.get(segment_key(number))
            demand("I1", kept=now is data or now == data, why=f"segment {number} was overwritten or deleted")
        while (data := self.objects.get(segment_key(len(self.segments) + 1))) is not None:
            self._take(len(self.segments) + 1, data)

    def finish(self) -> None:
        """Takes the rest in, and looks whether there is anything behind it, and the engine's fold counts as here."""
        self.follow()
        there = sorted(key for key in self.objects if key.startswith("log/"))
        demand("I1", kept=there == [segment_key(n + 1) for n in range(len(self.segments))], why=f"a gap in {there}")
        for trial in self.state.trials:
            curve, counted = self.curves[trial.number], [r.metrics["loss"] for r in trial.reports]
            demand("I5", kept=curve == counted, why=f"trial {trial.number} has {counted}, but the log {curve}")
            demand("I5", kept=trial.budget == len(curve), why=f"trial {trial.number} counts {trial.budget} steps")
        for key in self.named():
            demand("I1", kept=f"{key}/manifest.json" in self.objects, why=f"checkpoint {key} is gone")

    def before(self, call: Call) -> None:
        """Looks at a call before it has its effect: what the log names must not be deleted."""
        if call.name == "delete" and call.key.startswith("ckpt/"):
            self.follow()
            kept = not any(call.key.startswith(f"{key}/") for key in self.named())
            demand("I1", kept=kept, why=f"{call.process} deletes {call.key}, which the log names")

    def named(self) -> set[str]:
        """The checkpoints that the log says are there."""
        return {reference.key for trial in self.state.trials for _, reference in trial.checkpoints}

    def acknowledged(self, acks: list[tuple[int, tuple[Any, ...]]]) -> None:
        """Looks for everything that a caller was told is in the log, where he was told it is."""
        for number, events in acks:
            for event in events:
                found = self.lines.get(encode(event))
                demand("I1", kept=found == number, why=f"acknowledged in {number}, found in {found}: {event}")

    def view(self, number: int, state: StudyState) -> None:
        """Compares a reader's state with the log, as it was followed, up to where he has read."""
        demand("I3", kept=number in self._seen, why=f"a reader is at segment {number} of {len(self.segments)}")
        for name, value in told(state).items():
            true = self._seen[number][name]
            demand("I3", kept=value == true, why=f"a reader at segment {number} sees {name} {value}, not {true}")

    def _take(self, number: int, data: bytes) -> None:
        first, *lines = data.split(b"\n")
        header, previous = json.loads(first), self.segments[-1] if self.segments else None
        chain = hashlib.sha256(previous).hexdigest() if previous else ""
        demand("I1", kept=header["previous"] == chain, why=f"segment {number} does not follow from the one before")
        if header["role"] == "driver":
            demand("I4", kept=header["epoch"] >= self.epoch, why=f"epoch {header['epoch']} after {self.epoch}")
        self.segments.append(data)
        for line in lines[:-1]:
            before = self.lines.setdefault(line, number)
            demand("I1", kept=before == number and lines.count(line) == 1, why=f"twice in the log: {line!r}")
            event = json.loads(line)
            if event["type"] in DRIVERS:
                self._driven(header, event)
            self._key(event, number)
            getattr(self, f"_{event['type']}", lambda _: None)(event)
            self.state.apply(decode(line))
        if self.views:
            self._seen[number] = {name: copy(value) for name, value in told(self.state).items()}

    def _driven(self, header: dict[str, Any], event: dict[str, Any]) -> None:
        mine = header["role"] == "driver" and header["epoch"] == (event.get("epoch") or self.epoch)
        demand("I4", kept=mine, why=f"{event['type']} by {header['role']} of epoch {header['epoch']}, now {self.epoch}")

    def _key(self, event: dict[str, Any], number: int) -> None:
        if "key" in event:
            key = event["key"] + PARTS.get(event["type"], "").format(**event)
            before = self.keys.setdefault(key, number)
            demand("I2", kept=before == number, why=f"{key} has results in segments {before} and {number}")

    def _planned(self, event: dict[str, Any]) -> None:
        for proposal in event["proposals"]:
            expected = len(self.curves)
            demand("I5", kept=proposal["number"] == expected, why=f"sampled {proposal['number']}, not {expected}")
            self.curves.append([])
            self.attempts.append(0)

    def _opened(self, event: dict[str, Any]) -> None:
        demand("I4", kept=event["epoch"] > self.epoch, why=f"epoch {event['epoch']} opened after {self.epoch}")
        self.epoch, self.running = event["epoch"], {}

    def _started(self, event: dict[str, Any]) -> None:
        number, attempt = event["trial"], event["attempt"]
        demand("I5", kept=attempt > self.attempts[number], why=f"attempt {attempt} of trial {number} begins again")
        self.attempts[number] = self.running[number] = attempt

    def _reports(self, event: dict[str, Any]) -> None:
        rows = zip(event["trial"], event["attempt"], event["step"], event["metrics"]["loss"], strict=True)
        for number, attempt, step, loss in rows:
            if self.running.get(number) == attempt:
                curve = self.curves[number]
                demand("I5", kept=step <= len(curve) + 1, why=f"trial {number} has no step {step - 1}, but {step}")
                curve[step - 1 :] = [loss]

    def _ended(self, event: dict[str, Any]) -> None:
        if self.running.get(event["trial"]) == event["attempt"]:
            del self.running[event["trial"]]

    def _pruned(self, event: dict[str, Any]) -> None:
        self.running.pop(event["trial"], None)
