"""The driver of a launch step that runs its batch in its own process: it ends with the step.

What runs when the step ends cannot go on without this process: it pauses at its next checkpoint, and goes first in
the next step. This module must not know what a batch is good for.
"""

from __future__ import annotations

from tune_tasks.execution.driver import Driver
from tune_tasks.study import StudyState, Trial


class BatchDriver(Driver):
    """Runs one batch."""

    def run(self, batch: str) -> StudyState:
        """Takes the study over, runs the batch, records the end of its launch step, and returns the state.

        Raises `Fenced` when a newer driver took over, `ConfigError` when the first report shows that the spec cannot
        work. Interrupted, it leaves without another commit, as it may be in the middle of one: what was not committed
        is run again from the checkpoint before.
        """
        self._batch = batch
        if not self._take_over(f"{batch}/launch"):
            return self.state
        self._began = self._now()
        self._open()
        reason = self._drive()
        self._commit()
        self._decide(lambda: self._launched(batch, reason))
        self._clear(urgent=True)
        self.log.settle()
        return self.state

    def _mine(self, trial: Trial) -> bool:
        return trial.batch == self._batch

    def _drive(self) -> str:
        why = ""
        while True:
            self._supply()
            spent = self._spent()
            waiting = spent is None and next(self._waiting(), None) is not None
            if not self._handed and not waiting:
                return spent or why or "every trial has run"
            if not self._pausing and (reason := self._enough(waiting=waiting)):
                why = reason
            self._turn()

    def _enough(self, *, waiting: bool) -> str | None:
        """Says why the step shall end though trials still run, and asks them to pause."""
        execution = self.state.spec.execution
        if execution.step_time is not None and self._now() - self._began >= execution.step_time:
            self._end_all(wait_for_checkpoint=True)
            return f"the step has run for {execution.step_time:g} s"
        if self._has_results(self._batch):
            self._end_all(wait_for_checkpoint=True)
            return f"{execution.min_results} trials have their results"
        if not waiting and self._idles():
            self._end_all(wait_for_checkpoint=True)
            return "a worker was free for the next step"
        return None
