"""Random things that can happen to a study, and a look at a state that hides no field of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from tune_tasks.events import (
    Advance,
    Amended,
    Approved,
    Assignment,
    Checkpointed,
    CheckpointRef,
    Claimed,
    Created,
    Deployed,
    Deploying,
    Discarded,
    Ended,
    Evaluated,
    Event,
    Gate,
    Judged,
    Launched,
    Opened,
    Planned,
    Promoted,
    Promoting,
    Proposal,
    Prune,
    Pruned,
    Reports,
    Requested,
    Started,
)
from tune_tasks.spec import StudySpec
from tune_tasks.study import OVER, StudyState

SPEC = StudySpec(
    name="small",
    objective="objective:train",
    metric="loss",
    mode="min",
    space={"x": {"type": "float", "low": 0.0, "high": 1.0}, "n": {"type": "int", "low": 1, "high": 9}},
    budget={"trials": 40},
)
STUDY = "0123456789abcdef"


def created(study: str = STUDY) -> Created:
    spec, folder = SPEC.record(), "/where/it/was"
    return Created(study=study, spec=spec, folder=folder, code="4f2a", parent="memory://parent", time=1000.0)


def replayed(events: Iterable[Event]) -> StudyState:
    state = StudyState()
    for event in events:
        state.apply(event)
    return state


def told(state: StudyState) -> dict[str, Any]:
    """Every field of a state and of its trials, as plain values; tuples stay tuples."""
    whole = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    whole["spec"] = state.spec.model_dump()
    whole["queue"], whole["running"] = list(state.queue), list(state.running)
    whole["trials"] = [_trial(state, number) for number in range(len(state.trials))]
    del whole["curves"]
    return whole


def _trial(state: StudyState, number: int) -> dict[str, Any]:
    trial = state.trials[number]
    fields = {field.name: getattr(trial, field.name) for field in dataclasses.fields(trial)}
    assert fields.pop("curves") is state.curves
    fields |= {"reports": trial.reports, "length": state.curves.length(number), "curve": list(state.curve(number))}
    return fields


class Happenings:
    """Draws events that can follow from a state, and applies them to it, so that any number of them fits together."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.state = StudyState()
        self.events: list[Event] = []
        self.time = 1000.0
        self._apply(created())

    def happen(self, tries: int) -> list[Event]:
        """Lets up to `tries` more things happen and returns the events; some cannot happen just then."""
        before = len(self.events)
        kinds: list[Callable[[], Event | None]] = [
            *[self._report] * 6,
            *[self._start] * 4,
            *[self._end] * 3,
            *[self._plan] * 3,
            *[self._judge] * 2,
            *[self._checkpoint] * 3,
            self._discard,
            self._prune,
            self._open,
            self._request,
            self._launched,
            self._amend,
            self._evaluated,
            self._promoting,
            self._approved,
            self._promoted,
            self._deploying,
            self._deployed,
        ]
        if self.state.pipeline is None:
            self._apply(Claimed(pipeline="airflow/größe", time=self.time))
        for _ in range(tries):
            self.time += self.random.choice([0.0, 0.25, 3.0])
            event = self.random.choice(kinds)()
            if event is not None:
                self._apply(event)
        return self.events[before:]

    def _apply(self, event: Event) -> None:
        self.state.apply(event)
        self.events.append(event)

    def _any(self, *states: str) -> int | None:
        found = [trial.number for trial in self.state.trials if trial.state in states]
        return self.random.choice(found) if found else None

    def _plan(self) -> Event:
        first, key = len(self.state.trials), f"batch-{len(self.events)}"
        new = range(first, first + self.random.randint(0, 3))
        going_on = self._any("paused", "queued")
        assigned = [*new, *([] if going_on is None else [going_on])]
        return Planned(
            key=f"{key}/sample",
            run=self.random.choice(["main", "nightly"]),
            round=self.random.randint(0, 3),
            batch=key,
            proposals=tuple(
                Proposal(number=number, params={"x": self.random.random(), "n": 3, "é": None}, reason="drawn ✓")
                for number in new
            ),
            assignments=tuple(
                Assignment(
                    trial=number,
                    budget=self.random.choice([None, 1, 3, 9]),
                    last=self.random.random() < 0.3,
                    reason="new",
                )
                for number in assigned
            ),
            exhausted=self.random.random() < 0.1,
            time=self.time,
        )

    def _open(self) -> Event:
        return Opened(epoch=self.state.epoch + self.random.randint(1, 2), owner="here:1", time=self.time)

    def _request(self) -> Event | None:
        batch = self.random.choice(["", *self.state.batches])
        return Requested(batch=batch, job=self.state.job + self.random.randint(0, 1), time=self.time)

    def _start(self) -> Event | None:
        number = self._any("queued")
        if number is None:
            return None
        attempt = self.state.trials[number].attempts + 1
        node = self.random.choice(["", "n1", "n2"])
        return Started(trial=number, attempt=attempt, step=0, worker="w1", node=node, time=self.time)

    def _report(self) -> Event | None:
        rows = []
        known = {number: self.state.curves.length(number) for number in self.state.running}
        for _ in range(self.random.randint(0, 6)):
            if not known:
                return None
            number = self.random.choice(list(known))
            step = known[number] + 1 if self.random.random() < 0.8 else self.random.randint(1, known[number] + 1)
            known[number] = step
            rows.append((number, self.state.trials[number].attempts - (self.random.random() < 0.1), step))
        live = [row for row in rows if row[1] == self.state.trials[row[0]].attempts]
        if live != rows:  # what an older attempt still sends is dropped, so it must not count as a step
            rows = [row for row in rows if row not in live]
        second = [self.random.choice([None, self.random.random()]) for _ in rows]
        return Reports(
            trial=[row[0] for row in rows],
            attempt=[row[1] for row in rows],
            step=[row[2] for row in rows],
            time=[self.time + index / 8 for index in range(len(rows))],
            metrics={
                "loss": [self.random.uniform(-1e9, 1e9) for _ in rows],
                **({"accuracy": second} if self.random.random() < 0.5 else {}),
            },
        )

    def _checkpoint(self) -> Event | None:
        number = self._any("running")
        if number is None:
            return None
        step = self.random.randint(1, 9)
        reference = CheckpointRef(key=f"ckpt/{number}/1/{step}-00000000", digest="0" * 64, size=17)
        attempt = self.state.trials[number].attempts
        return Checkpointed(trial=number, attempt=attempt, step=step, checkpoint=reference, time=self.time)

    def _discard(self) -> Event | None:
        older = [
            (trial.number, step, reference.key)
            for trial in self.state.trials
            for step, reference in trial.checkpoints[: None if trial.state in OVER else -1]
        ]
        if not older:
            return None
        trial, step, key = self.random.choice(older)
        return Discarded(trial=[trial], step=[step], keys=(key,), time=self.time)

    def _end(self) -> Event | None:
        number = self._any("running")
        if number is None:
            return None
        outcome = self.random.choice(["reached", "returned", "carried", "failed", "lost", "moved"])
        return Ended(
            trial=number,
            attempt=self.state.trials[number].attempts,
            outcome=outcome,
            retry=self.random.random() < 0.5,
            error="ValueError: no" if outcome in {"failed", "lost"} else None,
            time=self.time,
        )

    def _prune(self) -> Event | None:
        number = self._any("running", "paused")
        return None if number is None else Pruned(trial=number, step=1, reason="hopeless", time=self.time)

    def _launched(self) -> Event:
        return Launched(
            key=f"batch-{len(self.events)}/launch",
            batch=self.random.choice(["", *self.state.batches]),
            states={"paused": 2},
            best=None,
            value=0.5,
            reason="drained",
            time=self.time,
        )

    def _judge(self) -> Event:
        batch = self.random.choice(["none", *self.state.batches])
        paused, alive = self._any("paused"), self._any(*{"queued", "running", "paused"} - OVER)
        return Judged(
            key=f"{batch}/evaluate" if self.random.random() < 0.7 else f"{batch}/evaluate/{len(self.events)}",
            batch=batch,
            advances=() if paused is None else (self._advance(paused),),
            prunes=() if alive in {None, paused} else (Prune(trial=alive, reason="worst"),),
            done=self.random.random() < 0.1,
            best=paused,
            value=None,
            reason="one of three advances",
            time=self.time,
        )

    def _advance(self, number: int) -> Advance:
        trials = self.state.trials
        donors = [t.number for t in trials if t.checkpoint and t.checkpoint[0] <= trials[number].budget]
        donor = self.random.choice(donors or [None])
        params = None if donor is None else self.random.choice([None, {"x": self.random.random(), "n": 3, "é": None}])
        return Advance(trial=number, budget=9, last=True, reason="best", donor=donor, params=params)

    def _amend(self) -> Event:
        spec = SPEC.model_copy(update={"name": self.random.choice(["small", "other"])})
        completed = self._any("completed")
        reopened = () if completed is None else (completed,)
        return Amended(spec=spec.record(), changes=("name",), reopened=reopened, time=self.time)

    def _evaluated(self) -> Event:
        return Evaluated(
            key=f"promote-{len(self.events)}",
            model="trial-1-3",
            seed=self.random.randint(0, 2),
            metrics={"test loss": self.random.random()},
            examples=2,
            place="evaluations/a",
            digest="b",
            time=self.time,
        )

    def _approved(self) -> Event:
        agreed = self.random.random() < 0.5
        key = f"promote-{len(self.events)}"
        return Approved(key=key, approved=agreed, by="Ann", why="seen it", time=self.time)

    def _deploying(self) -> Event:
        key = f"deploy-{len(self.events)}"
        return Deploying(key=key, target="serve", name="small", version="4", previous=None, time=self.time)

    def _deployed(self) -> Event:
        result = {"name": "small", "version": "4", "reason": "its check passed"}
        return Deployed(key=f"deploy-{len(self.events)}", result=result, time=self.time)

    def _promoting(self) -> Event:
        key = f"promote-{len(self.events)}"
        return Promoting(
            key=key,
            trial=self._any("completed"),
            step=1,
            value=0.1,
            champion={"version": 3},
            position=len(self.events),
            ledger=3,
            gates=(Gate(name="size", passed=True, value=3.0, limit=5.0, reason="size 3 is at most 5"),),
            evaluation={"test loss": 0.25},
            bounds={"test loss": (0.125, 0.5)},
            expires=self.random.choice([None, 5000.0]),
            reason="better",
            time=self.time,
        )

    def _promoted(self) -> Event:
        model = {"uri": "models:/small/1", "trials": [[1, 2]], "metrics": {"loss": 0.1}}
        return Promoted(key=f"promote-{len(self.events)}", model=model, time=self.time)
