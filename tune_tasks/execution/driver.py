"""The driver of a study: takes waiting trials from the log to a runner, and what happens to them back to the log.

It groups facts into commits, commits decisions before it acts on them, and stops for good when a newer driver took
the study over. It must not decide anything about tuning: that comes in as a `Decider`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol, assert_never

from tune_tasks.errors import ConfigError, Fenced
from tune_tasks.events import (
    Checkpointed,
    Discarded,
    Ended,
    Event,
    Launched,
    Opened,
    Prune,
    Pruned,
    Started,
)
from tune_tasks.execution import Began, Message, Over, Returned, Row, Runner, Saved, TrialTask
from tune_tasks.execution.group import Group, reports
from tune_tasks.space import config
from tune_tasks.store import checkpoints
from tune_tasks.store.log import StudyLog
from tune_tasks.study import StudyState, Trial

logger = logging.getLogger(__name__)

_TICK = 0.25
"""Longest time, in seconds, between two looks at budgets and progress."""


class Decider(Protocol):
    """What the driver asks about tuning."""

    @property
    def streams(self) -> bool:
        """Whether the driver asks for more trials itself instead of ending with its batch."""
        ...

    def watch(self, state: StudyState, trial: Trial) -> Prune | None:
        """Decides about a running trial that has just reported."""
        ...

    def retries(self, state: StudyState, trial: Trial, outcome: str) -> bool:
        """Tells whether a trial that failed or was lost is tried again."""
        ...

    def more(self, state: StudyState, waiting: int, wanted: int) -> Event | None:
        """Gives the next decision of a streaming study, to be committed and asked again; None when there is none."""
        ...

    def discard(self, state: StudyState) -> Discarded | None:
        """Picks the checkpoints that nothing needs any more; None where there is none."""
        ...

    def spent(self, state: StudyState) -> str | None:
        """Says which budget of the whole study is used up; None while none is."""
        ...

    def could_go_on(self, state: StudyState) -> bool:
        """Tells whether a next step would find work now, beside what already runs."""
        ...


class Driver:
    """Runs one batch, from `state`, which is as of the log's position and which it takes over. Drives once."""

    def __init__(
        self,
        log: StudyLog,
        state: StudyState,
        runner: Runner,
        decider: Decider,
        *,
        batch: str,
        owner: str,
        on_change: Callable[[StudyState], None] = lambda _: None,
    ) -> None:
        self.log, self.runner, self.decider, self.batch, self.owner = log, runner, decider, batch, owner
        self.on_change = on_change
        self.state = state
        self.epoch = 0
        self._handed: dict[int, TrialTask] = {}
        self._group = Group()
        self._zero = time.time() - time.monotonic()
        self._garbage: list[str] = []
        self._replaced: list[str] = []
        self._untidy = True
        self._changed = True
        self._ended = False
        self._pausing = False
        self._fatal: ConfigError | None = None

    def run(self, key: str) -> StudyState:
        """Takes the study over, runs the batch, records the end of the launch step `key`, and returns the state.

        Raises `Fenced` when a newer driver took over, `ConfigError` when the first report shows that the spec cannot
        work. Interrupted, it leaves without another commit, as it may be in the middle of one: what was not committed
        is run again from the checkpoint before.
        """
        if not self._take_over(key):
            return self.state
        self.runner.open(self._deliver)
        reason = self._drive()
        self._commit()
        self._decide(lambda: self._launched(key, reason))
        self._clear(urgent=True)
        self.log.settle()
        return self.state

    def _drive(self) -> str:
        while True:
            self._refill()
            self._hand_out()
            reason = self._over()
            if reason is not None:
                return reason
            self.runner.wait(min(_TICK, self.state.spec.execution.group_time) if self._group else _TICK)
            self._look()
            if self._fatal is not None:
                self._commit()
                raise self._fatal
            self.on_change(self.state)

    def _over(self) -> str | None:
        """Says why there is nothing left to do here; asks running trials to pause once a worker would idle."""
        spent = self.decider.spent(self.state)
        waiting = spent is None and next(self._waiting(), None) is not None
        if not self._handed and not waiting:
            return spent or ("a worker was free for the next step" if self._pausing else "every trial has run")
        if not waiting and self._idles():
            self._end_all(wait_for_checkpoint=True)
        return None

    def _end_all(self, *, wait_for_checkpoint: bool) -> None:
        """Asks everything that runs to pause; a trial without a checkpoint is waited for only where there is time."""
        self._pausing = True
        for number in list(self._handed):
            self.runner.stop(number, pause=wait_for_checkpoint or bool(self.state.trials[number].checkpoints))

    def _idles(self) -> bool:
        """Tells whether a worker is free that the next step could use; asked anew when a trial has ended."""
        if self.decider.streams or self._pausing or not self._ended or len(self._handed) >= self.runner.slots:
            return False
        self._ended = False
        return self.decider.could_go_on(self.state)

    def _waiting(self) -> Iterator[int]:
        """The trials of this batch that wait for a worker: those that have run before, then the new ones."""
        if self._pausing:
            return
        mine = [n for n in self.state.queue if n not in self._handed and self.state.trials[n].batch == self.batch]
        yield from (number for number in mine if self.state.trials[number].attempts)
        yield from (number for number in mine if not self.state.trials[number].attempts)

    def _refill(self) -> None:
        """Keeps a streaming study's queue two trials a worker longer than what the workers take now."""
        if not self.decider.streams or self._pausing or not self._changed:
            return
        self._changed = False
        wanted = self.runner.room() + 2 * self.runner.slots
        while self._decide(lambda: self.decider.more(self.state, self._queued(), wanted)):
            pass

    def _queued(self) -> int:
        return sum(number not in self._handed for number in self.state.queue)

    def _hand_out(self) -> None:
        room = self.runner.room()
        if room <= 0 or self._pausing or self.decider.spent(self.state):
            return
        tasks = [self._task(self.state.trials[number]) for number in islice(self._waiting(), room)]
        if tasks:
            self._changed = True
            self._handed.update((task.trial, task) for task in tasks)
            self.runner.submit(tasks)

    @staticmethod
    def _task(trial: Trial) -> TrialTask:
        return TrialTask(trial.number, trial.attempts + 1, config(trial.params), trial.target, trial.checkpoint)

    def _deliver(self, message: Message) -> None:
        if not isinstance(message, Returned):  # the clock of a worker may be wrong by hours
            message = message._replace(time=self._now())
        match message:
            case Row():
                self._report(message)
            case Began(trial, attempt, step, worker, moment):
                self._append(Started(trial=trial, attempt=attempt, step=step, worker=worker, time=moment))
            case Saved():
                self._save(message)
            case Over():
                self._end(message)
            case Returned(trial):
                self._handed.pop(trial, None)
            case _:
                assert_never(message)
        self._look()

    def _report(self, row: Row) -> None:
        self._group.report(row)
        self.state.apply(reports([row]))
        trial = self.state.trials[row.trial]
        if trial.state == "running" and trial.budget == row.step:
            prune = self.decider.watch(self.state, trial)
            if prune is not None:
                self._append(Pruned(trial=trial.number, step=row.step, reason=prune.reason, time=row.time))
                self._commit()
                self.runner.stop(trial.number, pause=False)
        if self._group.rows >= self.state.spec.execution.group_rows or self._group.heavy:
            self._commit()

    def _save(self, saved: Saved) -> None:
        trial = self.state.trials[saved.trial]
        if trial.state != "running" or trial.attempts != saved.attempt:
            self._garbage.append(saved.checkpoint.key)  # of a trial that was pruned, or replaced, in the meantime
            return
        self._untidy = True
        self._replaced += [known.key for step, known in trial.checkpoints if step >= saved.step]
        self._append(
            Checkpointed(
                trial=saved.trial,
                attempt=saved.attempt,
                step=saved.step,
                checkpoint=saved.checkpoint,
                time=saved.time,
            )
        )

    def _end(self, over: Over) -> None:
        self._handed.pop(over.trial, None)
        self._changed = self._ended = self._untidy = True
        trial = self.state.trials[over.trial]
        outcome = over.outcome
        if outcome == "stopped" and trial.state == "running":
            outcome = "carried"  # stopped by the end of the budget, not by a decision to prune it
        retry = outcome in {"failed", "lost"} and self.decider.retries(self.state, trial, outcome)
        if over.kind == "MissingMetric" and next(self.state.ranked(), None) is None:
            self._fatal = ConfigError(f"metric: {over.error}")
        self._append(
            Ended.model_validate(
                {
                    "trial": over.trial,
                    "attempt": over.attempt,
                    "outcome": outcome,
                    "retry": retry and self._fatal is None,
                    "error": over.error,
                    "time": over.time,
                }
            )
        )

    def _append(self, event: Event) -> None:
        self.state.apply(event)
        self._group.add(event)
        if self._group.heavy:
            self._commit()

    def _look(self) -> None:
        """Commits what is due and heeds the budget: at each message, as an inline runner waits for a whole trial."""
        if self._group and self._group.age >= self.state.spec.execution.group_time:
            self._commit()
        if not self._pausing and self._handed and self.decider.spent(self.state):
            self._end_all(wait_for_checkpoint=False)

    def _commit(self) -> None:
        """Commits the facts at hand, and with them which checkpoints nothing needs any more."""
        self._decide(lambda: self.decider.discard(self.state) if self._untidy else None)
        self._untidy = False
        self._clear()

    def _clear(self, *, urgent: bool = False) -> None:
        """Deletes what the log has discarded, beside the work; what a slow store cannot take now waits."""
        keys = tuple(self._garbage)
        if keys and self.log.aside.put(lambda: checkpoints.remove(self.log.objects, keys), urgent=urgent):
            self._garbage.clear()

    def _decide(self, decide: Callable[[], Event | None]) -> bool:
        """Commits the facts at hand and the decision that follows from them; returns whether there was one."""
        self._group.settle()
        while True:
            decision = decide()
            events = [*self._group.events, *([decision] if decision else [])]
            if not events:
                return False
            if self.log.commit(events, role="driver", epoch=self.epoch):
                break
            self._reload()
        if decision:
            self.state.apply(decision)
        if isinstance(decision, Discarded):
            self._garbage += decision.keys
        if self._replaced:  # by an attempt that began before them; another trial may have gone on from one
            named = self.state.checkpoint_keys()
            self._garbage += [key for key in self._replaced if key not in named]
            self._replaced.clear()
        self._group.clear()
        if self.log.snapshot_due:
            self.log.snapshot(self.state)
        return decision is not None

    def _reload(self) -> None:
        """Someone else committed first: takes that in, below the facts that are still on their way."""
        self.state = self.log.load()
        if self.state.epoch > self.epoch:
            raise Fenced(
                f"{self.log.url}: a newer driver (epoch {self.state.epoch}) took the study over from epoch {self.epoch}"
            )
        for event in self._group.events:
            self.state.apply(event)

    def _take_over(self, key: str) -> bool:
        """Fences every earlier driver; false where one of them has ended the step before this one could."""
        while key not in self.state.steps:
            self.epoch = self.state.epoch + 1
            opened = Opened(epoch=self.epoch, owner=self.owner, time=self._now())
            if self.log.commit([opened], role="driver", epoch=self.epoch):
                self.state.apply(opened)
                return True
            self.state = self.log.load()
        return False

    def _now(self) -> float:
        """Seconds since the epoch by this driver's clock, which never jumps: budgets of time are measured by it."""
        return self._zero + time.monotonic()

    def _launched(self, key: str, reason: str) -> Launched:
        states: dict[str, int] = {}
        for trial in self.state.trials:
            if trial.batch == self.batch:
                states[trial.state] = states.get(trial.state, 0) + 1
        best = self.state.best
        return Launched(
            key=key,
            batch=self.batch,
            states=states,
            best=best.number if best else None,
            value=best.value if best else None,
            reason=reason,
            time=self._now(),
        )
