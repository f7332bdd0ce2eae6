"""The driver of a study's Ray job: it serves one launch step after another, and what still runs goes on between them.

A launch step ends when a worker would idle, not when its last trial does: the others are carried over. The driver
takes from the log which batches are asked for, what the steps decide, and that the study is done. This module must
not know how a job is submitted, or what a batch is good for.
"""

from __future__ import annotations

import logging

from tune_tasks.execution.driver import Driver
from tune_tasks.study import OVER, StudyState, Trial

logger = logging.getLogger(__name__)

_LOOK = 1.0
"""Seconds between two looks into the log for what others committed, where no commit of one's own shows it."""


class JobDriver(Driver):
    """Runs every batch that a launch step asks for, until there has been nothing to do for a while."""

    def serve(self) -> StudyState:
        """Takes the study over and returns its state when the study is done, or nothing was asked for long enough.

        Raises `Fenced` when a newer driver took over, `ConfigError` when the first report shows that the spec cannot
        work.
        """
        self._asked: dict[str, float] = {}
        self._looked = self._busy = self._now()
        self._take_over()
        self._open()
        while not self._is_over():
            self._read_on()
            self._supply()
            for batch in self.state.requested:
                self._end_step(batch)
            self._turn()
        self._commit()
        self._clear(urgent=True)
        self.log.settle()
        return self.state

    def _mine(self, trial: Trial) -> bool:
        return trial.batch in self.state.requests

    def _is_over(self) -> bool:
        now = self._now()
        if self._handed or self.state.requested or next(self._waiting(), None) is not None:
            self._busy = now
        return self._busy < now and (self.state.done or now - self._busy >= self.state.spec.execution.linger)

    def _read_on(self) -> None:
        """Takes in what the steps committed; facts of one's own that wait will notice it when they are committed."""
        if self._group or self._now() - self._looked < _LOOK:
            return
        self._looked = self._now()
        if self.log.catch_up(self.state):
            self._obey()

    def _reload(self) -> None:
        super()._reload()
        self._obey()

    def _obey(self) -> None:
        """Does what the steps decided about trials that run."""
        self._heed_epoch()
        self._changed = self._ended = True
        if self._pausing and not self.state.done and not self._spent():
            self._pausing = False  # someone raised the budget
        for number in self._handed:
            if self.state.trials[number].state in OVER:
                self.runner.stop(number, pause=False)
        if self.state.done and self._handed and not self._pausing:
            self._end_all(wait_for_checkpoint=False)

    def _end_step(self, batch: str) -> None:
        """Ends the launch step of a batch where there is a reason to."""
        self._asked.setdefault(batch, self._now())
        reason = self._reason(batch)
        if reason is not None:
            self._decide(lambda: self._launched(batch, reason))
            logger.info("%s ends: %s", batch, reason)

    def _reason(self, batch: str) -> str | None:
        execution = self.state.spec.execution
        spent = self._spent()
        own = self.state.steps[f"{batch}/sample"]["trials"]  # an empty batch is the wait for what was left before it
        waiting = spent is None and any(not own or self.state.trials[n].batch == batch for n in self._waiting())
        if not self._handed and not waiting:
            return spent or "every trial has run"
        over = f"{len(self._handed)} of its trials and earlier ones go on"
        if execution.step_time is not None and self._now() - self._asked[batch] >= execution.step_time:
            return f"the step has run for {execution.step_time:g} s; {over}"
        if self._has_results(batch):
            return f"{execution.min_results} trials have their results; {over}"
        if not waiting and self._idles():
            return f"a worker was free for the next step; {over}"
        return None
