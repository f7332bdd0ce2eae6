"""What drivers of a study share: waiting trials go from the log to a runner, what happens to them back to the log.

A driver groups facts into commits, commits decisions before it acts on them, and stops for good when a newer one took
the study over. When it ends is said by those that derive from it: `batch` and `serving`. This module must not decide
anything about tuning: that comes in as a `Decider`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
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
from tune_tasks.execution import Began, Message, Over, Returned, Row, Runner, Saved, TrialTask, losses
from tune_tasks.execution.group import Group
from tune_tasks.space import config
from tune_tasks.store import checkpoints
from tune_tasks.store.log import StudyLog
from tune_tasks.study import OVER, StudyState, Trial

logger = logging.getLogger(__name__)

_TICK = 0.25
"""Longest time, in seconds, between two looks at budgets and progress."""
_HOPELESS = {"MissingMetric": "metric", "NotShipped": "objective"}
"""Errors that every trial will have, if the first one has them, and what in the spec is to be mended."""


class Decider(Protocol):
    """What the driver asks about tuning."""

    @property
    def streams(self) -> bool:
        """Whether the driver asks for more trials itself instead of ending with its batch."""
        ...

    def watch(self, state: StudyState, trial: Trial) -> Prune | None:
        """Decides about a running trial that has just reported."""
        ...

    def overdue(self, state: StudyState, trial: Trial, time: float) -> Prune | None:
        """Decides about a running trial by how long it has run."""
        ...

    def retries(self, state: StudyState, trial: Trial, outcome: str) -> bool:
        """Tells whether a trial that failed or was lost is tried again."""
        ...

    def more(self, state: StudyState, waiting: int, wanted: int, time: float) -> Event | None:
        """Gives the next decision of a streaming study, to be committed and asked again; None when there is none."""
        ...

    def discard(self, state: StudyState, time: float) -> Discarded | None:
        """Picks the checkpoints that nothing needs any more; None where there is none."""
        ...

    def spent(self, state: StudyState, time: float) -> str | None:
        """Says which budget of the whole study is used up by now; None while none is."""
        ...

    def could_go_on(self, state: StudyState) -> bool:
        """Tells whether a next step would find work now, beside what already runs."""
        ...


class Driver:
    """What every driver of a study does, from `state` on, which is as of the log's position. It drives once.

    What derives from it says which trials are its own, and when it ends.
    """

    def __init__(
        self,
        log: StudyLog,
        state: StudyState,
        runner: Runner,
        decider: Decider,
        *,
        owner: str,
        on_change: Callable[[StudyState], None] = lambda _: None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`clock` gives seconds since the epoch and never jumps; by default that of this machine, read once."""
        self.log, self.runner, self.decider, self.owner = log, runner, decider, owner
        self.on_change = on_change
        self.state = state
        self.epoch = 0
        self._handed: dict[int, TrialTask] = {}
        self._unbegun: set[int] = set()
        self._now = clock or _steady()
        self._group = Group(self._now)
        self._heard: dict[int, float] = {}
        self._silent: dict[int, str] = {}
        self._limited = 0.0
        self._garbage: list[str] = []
        self._replaced: list[str] = []
        self._untidy = True
        self._changed = True
        self._ended = False
        self._pausing = False
        self._fatal: ConfigError | None = None

    def _mine(self, trial: Trial) -> bool:
        """Tells whether a trial that waits is this driver's to run."""
        raise NotImplementedError

    def _open(self) -> None:
        """Makes the runner ready, and tells it which nodes the log knows to fail."""
        self.runner.open(self._deliver)
        self.runner.avoid(self.state.avoided)

    def _supply(self) -> None:
        """Hands out what waits."""
        self._refill()
        self._hand_out()

    def _turn(self) -> None:
        """Takes in what has happened, and heeds the limits."""
        self.runner.wait(min(_TICK, self.state.spec.execution.group_time) if self._group else _TICK)
        self._look()
        if self._fatal is not None:
            self._commit()
            raise self._fatal
        self.on_change(self.state)

    def _end_all(self, *, wait_for_checkpoint: bool) -> None:
        """Asks everything that runs to pause; a trial without a checkpoint is waited for only where there is time."""
        self._pausing = True
        for number in list(self._handed):
            self.runner.stop(number, pause=wait_for_checkpoint or bool(self.state.trials[number].checkpoints))

    def _spent(self) -> str | None:
        return self.decider.spent(self.state, self._now())

    def _idles(self) -> bool:
        """Tells whether a worker is free that the next step could use; asked anew when a trial has ended."""
        if self.decider.streams or self._pausing or not self._ended or len(self._handed) >= self.runner.slots:
            return False
        self._ended = False
        return self.decider.could_go_on(self.state)

    def _has_results(self, batch: str) -> bool:
        """Tells whether so many trials of a batch have run that its step may end."""
        enough = self.state.spec.execution.min_results
        if enough is None or self.decider.streams:
            return False
        planned = (self.state.trials[number] for number, _ in self.state.steps[f"{batch}/sample"]["trials"])
        ran = [trial for trial in planned if trial.batch == batch and trial.state in OVER | {"paused"}]
        return len(ran) >= enough

    def _waiting(self) -> Iterator[int]:
        """The trials of this driver that wait for a worker: those that have run before, then the new ones."""
        if self._pausing:
            return
        waiting = self.state.waiting
        for number in chain(waiting.again, waiting.new):
            if number not in self._handed and self._mine(self.state.trials[number]):
                yield number

    def _refill(self) -> None:
        """Keeps a streaming study's queue two trials a worker longer than what the workers take now."""
        if not self.decider.streams or self._pausing or not self._changed:
            return
        self._changed = False
        wanted = self.runner.room(0) + 2 * self.runner.slots
        while self._decide(lambda: self.decider.more(self.state, self._queued(), wanted, self._now())):
            pass

    def _queued(self) -> int:
        return len(self.state.queue) - len(self._unbegun)

    def _hand_out(self) -> None:
        if self._pausing or self._spent():
            return
        room = max(self.runner.room(self._queued()), 0)
        tasks = [self._task(self.state.trials[number]) for number in islice(self._waiting(), room)]
        if tasks:
            self._changed = True
            self._handed.update((task.trial, task) for task in tasks)
            self._unbegun.update(task.trial for task in tasks)
            self.runner.submit(tasks)

    @staticmethod
    def _task(trial: Trial) -> TrialTask:
        return TrialTask(trial.number, trial.attempts + 1, config(trial.params), trial.target, trial.checkpoint)

    def _deliver(self, message: Message) -> None:
        self._unbegun.discard(message.trial)
        if not isinstance(message, Returned):  # the clock of a worker may be wrong by hours
            message = message._replace(time=self._now())
            self._heard[message.trial] = message.time
        match message:
            case Row():
                self._report(message)
            case Began(trial, attempt, step, worker, moment, node):
                self._append(Started(trial=trial, attempt=attempt, step=step, worker=worker, node=node, time=moment))
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
        self.state.report(*row)
        trial = self.state.trials[row.trial]
        if trial.state == "running" and trial.budget == row.step:
            self._prune(self.decider.watch(self.state, trial))
        if self._group.rows >= self.state.spec.execution.group_rows or self._group.heavy:
            self._commit()

    def _prune(self, prune: Prune | None) -> None:
        """Records that a running trial shall stop for good, and then tells it."""
        if prune is None:
            return
        step = self.state.trials[prune.trial].budget
        self._append(Pruned(trial=prune.trial, step=step, reason=prune.reason, time=self._now()))
        self._commit()
        self.runner.stop(prune.trial, pause=False)

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
        self._heard.pop(over.trial, None)
        trial = self.state.trials[over.trial]
        silence = self._silent.pop(over.trial, None)
        outcome = losses.judged(over.outcome, over.error, trial.error)
        if outcome == "stopped" and trial.state == "running":
            outcome = "failed" if silence else "carried"  # by the end of the budget, not by a decision to prune it
        retry = outcome in {"failed", "lost"} and self.decider.retries(self.state, trial, outcome)
        if over.kind in _HOPELESS and next(self.state.ranked(), None) is None:
            self._fatal = ConfigError(f"{_HOPELESS[over.kind]}: {over.error}")
        self._append(
            Ended.model_validate(
                {
                    "trial": over.trial,
                    "attempt": over.attempt,
                    "outcome": outcome,
                    "retry": retry and self._fatal is None,
                    "error": silence if outcome == "failed" and silence else over.error,
                    "node": over.node or None,
                    "time": over.time,
                }
            )
        )
        self.runner.avoid(self.state.avoided)

    def _append(self, event: Event) -> None:
        self.state.apply(event)
        self._group.add(event)
        if self._group.heavy:
            self._commit()

    def _look(self) -> None:
        """Commits what is due and heeds the budget: at each message, as an inline runner waits for a whole trial."""
        if self._group and self._group.age >= self.state.spec.execution.group_time:
            self._commit()
        if not self._pausing and self._handed and self._spent():
            self._end_all(wait_for_checkpoint=False)
        if self._now() - self._limited >= _TICK:
            self._limited = self._now()
            self._heed_limits()

    def _heed_limits(self) -> None:
        """Ends what has run, or been silent, for longer than the spec allows."""
        budget, execution = self.state.spec.budget, self.state.spec.execution
        if budget.trial_time is None and execution.report_time is None:
            return
        for number in list(self._handed):
            trial = self.state.trials[number]
            if trial.state != "running":
                continue
            self._prune(self.decider.overdue(self.state, trial, self._now()))
            quiet = self._now() - self._heard.get(number, math.inf)
            if execution.report_time is not None and quiet >= execution.report_time and number not in self._silent:
                self._silent[number] = (
                    f"no report came for {quiet:.0f} s; execution.report_time allows {execution.report_time:g} s"
                )
                self.runner.stop(number, pause=False)

    def _commit(self) -> None:
        """Commits the facts at hand, and with them which checkpoints nothing needs any more."""
        self._decide(lambda: self.decider.discard(self.state, self._now()) if self._untidy else None)
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
        self._heed_epoch()
        for event in self._group.events:
            self.state.apply(event)

    def _heed_epoch(self) -> None:
        if self.state.epoch > self.epoch:
            raise Fenced(
                f"{self.log.url}: a newer driver (epoch {self.state.epoch}) took the study over from epoch {self.epoch}"
            )

    def _take_over(self, key: str | None = None) -> bool:
        """Fences every earlier driver; false where one of them has ended the step `key` before this one could."""
        while key not in self.state.steps:
            self.epoch = self.state.epoch + 1
            opened = Opened(epoch=self.epoch, owner=self.owner, time=self._now())
            if self.log.commit([opened], role="driver", epoch=self.epoch):
                self.state.apply(opened)
                return True
            self.state = self.log.load()
        return False

    def _launched(self, batch: str, reason: str) -> Launched:
        """The end of the launch step of a batch."""
        states: dict[str, int] = {}
        for trial in self.state.trials:
            if trial.batch == batch:
                states[trial.state] = states.get(trial.state, 0) + 1
        best = self.state.best
        return Launched(
            key=f"{batch}/launch",
            batch=batch,
            states=states,
            best=best.number if best else None,
            value=best.value if best else None,
            reason=reason,
            avoided=self.state.avoided,
            time=self._now(),
        )


def _steady() -> Callable[[], float]:
    """A clock in seconds since the epoch that never jumps: budgets of time are measured by it."""
    zero = time.time() - time.monotonic()
    return lambda: zero + time.monotonic()
