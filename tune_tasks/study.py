"""What is true of a study now: the fold of its log, trial by trial.

`StudyState.apply` is the only way in which a state changes (`report` is the same for one row), and a function of the
state and the event alone: it must not read a clock, draw a random number, or do I/O. Samplers, schedulers and decisions
read a state and never write it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from tune_tasks.curves import Curves
from tune_tasks.events import (
    Advance,
    Amended,
    Approved,
    Assignment,
    Checkpointed,
    Claimed,
    Created,
    Deployed,
    Deploying,
    Discarded,
    Ended,
    Evaluated,
    Event,
    Judged,
    Launched,
    Opened,
    Planned,
    Promoted,
    Promoting,
    Prune,
    Pruned,
    Reports,
    Requested,
    Started,
    Value,
)
from tune_tasks.indexes import Best, Changes, Queue
from tune_tasks.spec import StudySpec
from tune_tasks.transitions import assigned, discarded, ended, reopened, stood
from tune_tasks.trial import OVER, Batch, Saved, Trial, TrialStatus


class _Indexed:
    """What a state keeps beside its fields: whoever compares, copies or writes them must not see it."""

    __slots__ = ("changes",)

    def __post_init__(self) -> None:
        self.changes = Changes()


@dataclass(slots=True)
class StudyState(_Indexed):
    """The study as its log tells it. Read its fields as you like; only `apply` may change them."""

    study: str = ""
    spec: StudySpec = None  # type: ignore[assignment]  # the first event is always Created
    folder: str | None = None
    code: str | None = None
    parent: str | None = None
    pipeline: str | None = None
    trials: list[Trial] = field(default_factory=list)
    curves: Curves = field(default_factory=Curves)
    queue: dict[int, None] = field(default_factory=dict)
    running: dict[int, None] = field(default_factory=dict)
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    rounds: dict[str, int] = field(default_factory=dict)
    batches: dict[str, str] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    suspects: dict[str, list[int]] = field(default_factory=dict)
    epoch: int = 0
    owner: str = ""
    exhausted: bool = False
    done: bool = False
    reason: str = ""
    spent: float = 0.0
    since: float | None = None
    now: float = 0.0
    promotions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def elapsed(self) -> float:
        """Seconds that drivers have worked on this study, by the times in the log."""
        return self.elapsed_by(self.now)

    def elapsed_by(self, time: float) -> float:
        """The same at a moment after the last event, in seconds since the epoch."""
        return self.spent + (max(time, self.now) - self.since if self.since is not None else 0.0)

    @property
    def job(self) -> int:
        """The newest attempt at the study's Ray job that a launch step asked for; 0 while there is none."""
        return max(self.requests.values(), default=0)

    @property
    def requested(self) -> list[str]:
        """The batches that a job shall run and that no launch step has ended yet, the oldest first."""
        return [batch for batch in self.requests if f"{batch}/launch" not in self.steps]

    @property
    def avoided(self) -> tuple[str, ...]:
        """The nodes that lost so many different trials, one after the other, that no more are begun there."""
        return tuple(node for node, lost in self.suspects.items() if len(lost) >= self.spec.retry.node)

    @property
    def sign(self) -> float:
        """1 where a smaller metric is better, -1 where a larger one is."""
        return 1.0 if self.spec.mode == "min" else -1.0

    @property
    def best(self) -> Trial | None:
        """The trial with the best value among those that did not fail; of equals, the first."""
        first = self.changes.index(self, Best, Best).first()
        return self.trials[first[0]] if first else None

    @property
    def waiting(self) -> Queue:
        """The queue, with the trials that have run before apart from the new ones."""
        return self.changes.index(self, Queue, Queue)

    def ranked(self) -> Iterator[Trial]:
        """The trials that have a value and did not fail."""
        return (trial for trial in self.trials if trial.value is not None and trial.state != "failed")

    def curve(self, number: int) -> Sequence[float]:
        """The objective metric of a trial, step by step."""
        return self.curves.column(number, self.spec.metric)

    def value_at(self, number: int, budget: int) -> float | None:
        """The best value of a trial up to `budget` steps; None before it has run that far."""
        column = self.curve(number)
        if len(column) < budget:
            return None
        return min(column[:budget]) if self.spec.mode == "min" else max(column[:budget])

    def reported(self, number: int, step: int) -> float:
        """What a trial reported of the objective metric at one step; NaN where it did not."""
        column = self.curve(number)
        return column[step - 1] if step <= len(column) else math.nan

    def saved(self) -> Iterator[Saved]:
        """Every checkpoint that there is, by trial and step. Two trials may name one place, if one went on from it."""
        for trial in self.trials:
            for step, reference in trial.checkpoints:
                yield Saved(trial.number, step, reference)

    def checkpoint_keys(self) -> set[str]:
        """Where the checkpoints lie that there are; what else lies below `ckpt/` is garbage."""
        return {item.reference.key for item in self.saved()}

    def count(self, *states: str) -> int:
        """How many trials are in one of these states."""
        return sum(trial.state in states for trial in self.trials)

    def copy(self) -> StudyState:
        """A copy that no later event reaches, to be read on another thread. Trials and results of steps are shared."""
        return replace(
            self,
            trials=list(self.trials),
            curves=self.curves.copy(),
            queue=dict(self.queue),
            running=dict(self.running),
            steps=dict(self.steps),
            rounds=dict(self.rounds),
            batches=dict(self.batches),
            requests=dict(self.requests),
            suspects=dict(self.suspects),
            promotions=list(self.promotions),
        )

    def apply(self, event: Event) -> None:
        """Takes one more event in. Raises `ValueError` where it cannot follow from the events before."""
        match event:
            case Created():
                self.study, self.folder, self.spec = event.study, event.folder, StudySpec(**event.spec)
                self.code, self.parent = event.code, event.parent
            case Amended():
                self._amend(event)
            case Claimed():
                self.pipeline = event.pipeline
            case Planned():
                self._plan(event)
            case Requested():
                self.requests[event.batch] = event.job
                self.since, self.now = self.since or event.time, max(self.now, event.time)
            case Opened():
                self._open(event)
            case Started():
                self._start(event)
            case Reports():
                self._report(event)
            case Checkpointed():
                self._checkpoint(event)
            case Ended():
                self._end(event)
            case Discarded():
                self._discard(event)
            case Pruned():
                self._prune(event.trial, event.reason)
            case Launched():
                self._launched(event)
            case Judged():
                self._judge(event)
            case Evaluated() | Promoting() | Approved() | Promoted() | Deploying() | Deployed():
                self._deliver(event)
            case _:
                assert_never(event)

    def _deliver(self, event: Evaluated | Promoting | Approved | Promoted | Deploying | Deployed) -> None:
        """What follows the search: each step's parts stand below its key until its result does."""
        match event:
            case Promoted():
                self.steps[event.key] = event.model
                self.promotions.append(event.model)
            case Deployed():
                self.steps[event.key] = event.result
            case Evaluated():
                self.steps[f"{event.key}/{event.model}/{event.seed}"] = _told(event)
            case Promoting():
                self.steps[f"{event.key}/decision"] = _told(event)
            case Approved():
                self.steps[f"{event.key}/approval"] = _told(event)
            case Deploying():
                self.steps[f"{event.key}/intent"] = _told(event)
            case _:
                assert_never(event)

    def _amend(self, event: Amended) -> None:
        self.spec, self.done, self.exhausted = StudySpec(**event.spec), False, False
        for number in event.reopened:
            self._put(reopened(self.trials[number]))

    def report(self, number: int, attempt: int, step: int, time: float, metrics: dict[str, float]) -> None:
        """Takes one report in as `apply` does an event with nothing else, for a driver that hears them one by one."""
        trial = self.trials[number]
        if trial.state == "running" and attempt == trial.attempts:
            dropped = self.curves.append(number, step, time, metrics.items())
            self._put(self._valued(trial, afresh=dropped))
        self.now = max(self.now, time)

    def _plan(self, event: Planned) -> None:
        for proposal in event.proposals:
            if proposal.number != len(self.trials):
                raise ValueError(f"trial {proposal.number} is proposed, expected trial {len(self.trials)}")
            self.trials.append(Trial(proposal.number, proposal.params, proposal.reason, curves=self.curves))
            self.changes.note(proposal.number)
        for assignment in event.assignments:
            self._assign(assignment, event.batch)
        self.exhausted = self.exhausted or event.exhausted
        self.batches[event.batch] = event.run
        self.steps[event.key] = {
            "id": event.batch,
            "run": event.run,
            "round": event.round,
            "trials": [(a.trial, a.budget) for a in event.assignments],
            "exhausted": event.exhausted,
        }

    def _assign(self, assignment: Assignment, batch: str) -> None:
        self._put(assigned(self.trials[assignment.trial], assignment, batch))

    def _open(self, event: Opened) -> None:
        if event.epoch <= self.epoch:
            raise ValueError(f"epoch {event.epoch} is opened after epoch {self.epoch}")
        self._close(self.now)
        for number in list(self.running):
            self._put(stood(self.trials[number], self.now).changed(state="queued", why="its driver went away"))
        self.epoch, self.owner, self.since, self.now = event.epoch, event.owner, event.time, event.time

    def _start(self, event: Started) -> None:
        trial = self.trials[event.trial]
        self.now = max(self.now, event.time)
        if trial.state == "queued" and event.attempt > trial.attempts:
            self._put(trial.changed(state="running", attempts=event.attempt, began=event.time, node=event.node))

    def _report(self, event: Reports) -> None:
        rows_of: dict[int, list[int]] = {}
        for row, number in enumerate(event.trial):
            rows_of.setdefault(number, []).append(row)
        for number, rows in rows_of.items():
            trial = self.trials[number]
            live = [row for row in rows if event.attempt[row] == trial.attempts]
            if trial.state == "running" and live:
                steps, times = [event.step[row] for row in live], [event.time[row] for row in live]
                columns = ((name, [column[row] for row in live]) for name, column in event.metrics.items())
                dropped = self.curves.extend(number, steps, times, columns)
                self._put(self._valued(trial, afresh=dropped))
        if event.time:
            self.now = max(self.now, event.time[-1])

    def _valued(self, trial: Trial, *, afresh: bool) -> Trial:
        """Brings a trial's value up to its curve; from scratch where a part of the curve was dropped."""
        column, sign = self.curve(trial.number), self.sign
        start, step = (0, None) if afresh else (trial.budget, trial.best_step)
        best = math.inf if afresh or trial.value is None else sign * trial.value
        for index in range(start, len(column)):
            signed = sign * column[index]
            if signed < best:  # never where it is NaN
                best, step = signed, index + 1
        value = None if step is None else sign * best
        return trial.changed(value=value, best_step=step, budget=self.curves.length(trial.number))

    def _checkpoint(self, event: Checkpointed) -> None:
        trial = self.trials[event.trial]
        self.now = max(self.now, event.time)
        if event.attempt == trial.attempts and trial.state == "running":
            kept = tuple(item for item in trial.checkpoints if item[0] < event.step)
            self._put(trial.changed(checkpoints=(*kept, (event.step, event.checkpoint))))

    def _discard(self, event: Discarded) -> None:
        for number, step in zip(event.trial, event.step, strict=True):
            self._put(discarded(self.trials[number], step))

    def _end(self, event: Ended) -> None:
        trial = self.trials[event.trial]
        self.now = max(self.now, event.time)
        if trial.began is not None and event.attempt == trial.attempts:
            trial = stood(trial, event.time)
            self._put(trial)
            self._suspect(trial, event.node or trial.node, lost=event.outcome == "lost")
        if event.attempt == trial.attempts and trial.state == "running":
            self._put(ended(trial, event))

    def _suspect(self, trial: Trial, node: str, *, lost: bool) -> None:
        """Notes that a node lost a trial; a trial that ends there in any other way clears it."""
        if not lost:
            self.suspects.pop(trial.node, None)
        elif node and trial.number not in (known := self.suspects.get(node, [])):
            self.suspects[node] = [*known, trial.number]

    def _prune(self, number: int, reason: str) -> None:
        trial = self.trials[number]
        if trial.state not in OVER:
            self._put(trial.changed(state="pruned", advance=None, why=reason))

    def _launched(self, event: Launched) -> None:
        self._close(event.time)
        self.steps[event.key] = event.model_dump(
            mode="json", include={"batch", "states", "best", "value", "reason", "avoided"}
        )

    def _judge(self, event: Judged) -> None:
        for advance in event.advances:
            trial = self.trials[advance.trial]
            if trial.state == "paused":
                self._put(self._inherited(trial.changed(advance=advance, why=advance.reason)))
        for prune in event.prunes:
            self._prune(prune.trial, prune.reason)
        self.done, self.reason = self.done or event.done, event.reason
        run = self.batches.get(event.batch, "")
        self.rounds[run] = self.rounds.get(run, 0) + (event.key == f"{event.batch}/evaluate")
        self.steps[event.key] = {
            **event.model_dump(include={"batch", "done", "best", "value", "reason"}),
            "advances": [advance.trial for advance in event.advances],
            "prunes": [prune.trial for prune in event.prunes],
        }

    def _inherited(self, trial: Trial) -> Trial:
        """A trial that advances, with the checkpoint (named twice then, not copied) and the parameters of a donor."""
        advance = trial.advance
        if advance is None or advance.donor is None:
            return trial
        source = self.trials[advance.donor].checkpoint
        if source is None or source[0] > trial.budget:
            raise ValueError(f"trial {trial.number} cannot go on from trial {advance.donor}, which is at {source}")
        return trial.changed(checkpoints=(source,), params=trial.params if advance.params is None else advance.params)

    def _close(self, time: float) -> None:
        if self.since is not None:
            self.spent, self.since = self.spent + max(0.0, time - self.since), None
            self.now = max(self.now, time)

    def _put(self, trial: Trial) -> None:
        before = self.trials[trial.number].state
        self.trials[trial.number] = trial
        self.changes.note(trial.number)
        if before != trial.state or trial.state == "queued":
            self.queue.pop(trial.number, None)
            self.running.pop(trial.number, None)
            if trial.state == "queued":
                self.queue[trial.number] = None
            elif trial.state == "running":
                self.running[trial.number] = None


def _told(event: Value) -> dict[str, Any]:
    return event.model_dump(mode="json", exclude={"type"})


__all__ = ["OVER", "Advance", "Batch", "Prune", "Saved", "StudyState", "Trial", "TrialStatus"]
