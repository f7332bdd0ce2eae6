"""A runner whose workers are imagined: it says what real ones would, at the virtual time at which they would.

`wait` moves the clock. Where no limit of time is near and nothing waits to be committed, it goes straight to the next
message. This module must not decide anything, and must not look at a state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tune_tasks.events import CheckpointRef
from tune_tasks.execution import Began, Message, Over, Returned, Row, Saved, TrialTask
from tune_tasks.simulate.accounts import Tally, Usage
from tune_tasks.simulate.agenda import Agenda
from tune_tasks.simulate.model import Course, Model
from tune_tasks.simulate.nodes import Node, Nodes
from tune_tasks.simulate.pool import Pool
from tune_tasks.spec import StudySpec


@dataclass(slots=True, eq=False)
class _Attempt:
    """One that runs. `saved` is when its newest checkpoint was made, `asked` what it shall do at its next report."""

    task: TrialTask
    course: Course
    node: Node
    step: int
    began: float
    saved: float
    asked: str = ""
    over: bool = False


class SimulatedRunner:
    """Runs the attempts of one study on one pool, from time 0 on. It drives one study only."""

    def __init__(self, spec: StudySpec, pool: Pool, model: Model, *, seed: int, checkpoint_every: int = 1) -> None:
        """`checkpoint_every`: steps between two checkpoints; 0 for an objective that makes none."""
        self.agenda, self.usage, self.tally = Agenda(), Usage(), Tally()
        self._spec, self._model, self._every = spec, model, checkpoint_every
        self._nodes = Nodes(pool, self.agenda, seed, changed=self._change, taken=self._lose)
        self._most = min(pool.nodes * pool.slots, spec.budget.concurrency or math.inf)
        self._running: dict[int, _Attempt] = {}
        self._on: dict[str, dict[int, _Attempt]] = {}
        self._messages: list[Message] = []
        self._deliver: Callable[[Message], None] = lambda _: None
        self._patience = _patience(spec)
        self._quiet = self._grown = False

    @property
    def nodes(self) -> Nodes:
        """The machines, and what they cost so far."""
        return self._nodes

    @property
    def slots(self) -> int:
        """How many trials run at once when every node is up."""
        return int(self._most)

    def now(self) -> float:
        """The virtual time, in seconds since the nodes were asked for."""
        return self.agenda.now

    def open(self, deliver: Callable[[Message], None]) -> None:
        """See `Runner.open`."""
        self._deliver = deliver

    def room(self, waiting: int) -> int:
        """The slots that are free; nodes that were given back are asked for again where these are too few."""
        self._nodes.want(min(waiting, self.slots - len(self._running)))
        return max(0, min(self._nodes.free, self.slots - len(self._running)))

    def submit(self, tasks: Sequence[TrialTask]) -> None:
        """Begins the tasks at once; those for which there is no slot are given back."""
        for task in tasks:
            if self.room(0):
                self._begin(task)
            else:
                self._messages.append(Returned(task.trial, task.attempt))

    def wait(self, timeout: float) -> None:
        """Moves the clock to the next message or node, at most by `timeout`, or further where nothing comes before."""
        until = self.now() + timeout
        if self._quiet and self._running:
            until = max(until, min(self.now() + self._patience, self.agenda.next))
        self._grown = False
        while not (self._messages or self._grown) and self.agenda.advance(until):
            pass
        said, self._messages = self._messages, []
        self._quiet = not said
        for message in said:
            self._deliver(message)

    def stop(self, trial: int, *, pause: bool) -> None:
        """See `Runner.stop`; one without a report in time ends after `execution.stop_grace`."""
        attempt = self._running.get(trial)
        if attempt is None or attempt.asked == "stop":
            return
        attempt.asked = "pause" if pause else "stop"
        if not pause:
            end = self.now() + self._spec.execution.stop_grace
            self.agenda.at(end, lambda: None if attempt.over else self._end(attempt, "stopped"))

    def avoid(self, nodes: Collection[str]) -> None:
        """See `Runner.avoid`."""
        self._nodes.avoid(nodes)

    def rest(self, seconds: float) -> None:
        """Lets time pass in which nobody drives the study."""
        until = self.now() + seconds
        while self.agenda.advance(until):
            pass

    def close(self) -> None:
        """Gives all nodes back."""
        self._nodes.release()
        self._measure()

    def _begin(self, task: TrialTask) -> None:
        node, step = self._nodes.take(), task.checkpoint[0] if task.checkpoint else 0
        attempt = _Attempt(task, self._model.course(task), node, step, self.now(), self.now())
        self._running[task.trial] = self._on.setdefault(node.name, {})[task.trial] = attempt
        self._messages.append(Began(task.trial, task.attempt, step, node.name, self.now(), node.name))
        self._measure()
        self._next(attempt)

    def _next(self, attempt: _Attempt) -> None:
        self.agenda.at(self.now() + attempt.course.seconds, lambda: None if attempt.over else self._step(attempt))

    def _step(self, attempt: _Attempt) -> None:
        task, course = attempt.task, attempt.course
        attempt.step = step = attempt.step + 1
        if step == course.fails:
            self._end(attempt, "failed", "SimulatedError: it was drawn to fail", "SimulatedError")
            return
        self.tally.step(task.trial, step)
        metrics = {self._spec.metric: course.value(step)}
        self._messages.append(Row(task.trial, task.attempt, step, self.now(), metrics))
        saved = self._saves(attempt)
        if saved:
            attempt.saved = self.now()
            reference = CheckpointRef(key=f"ckpt/{task.trial:06d}/{task.attempt}/{step}", digest="", size=0)
            self._messages.append(Saved(task.trial, task.attempt, step, reference, self.now()))
        outcome = self._outcome(attempt, saved=saved)
        if outcome is None:
            self._next(attempt)
        else:
            self._end(attempt, outcome)

    def _saves(self, attempt: _Attempt) -> bool:
        step = attempt.step
        return bool(self._every) and (
            step % self._every == 0 or step in {attempt.task.budget, attempt.course.length} or attempt.node.leaving
        )

    def _outcome(self, attempt: _Attempt, *, saved: bool) -> str | None:
        step, budget = attempt.step, attempt.task.budget
        if budget is not None and step >= budget:
            return "reached"
        if attempt.asked == "stop":
            return "stopped"
        if step == attempt.course.length:
            return "returned"
        if saved and attempt.node.leaving:
            return "moved"
        return "carried" if saved and attempt.asked == "pause" else None

    def _end(self, attempt: _Attempt, outcome: str, error: str | None = None, kind: str | None = None) -> None:
        task = attempt.task
        attempt.over = True
        self.tally.worked += self.now() - attempt.began
        self.tally.moved += outcome == "moved"
        del self._running[task.trial], self._on[attempt.node.name][task.trial]
        self._nodes.give(attempt.node)
        self._measure()
        self._messages.append(Over(task.trial, task.attempt, outcome, error, kind, self.now()))

    def _lose(self, node: Node) -> None:
        """What ran on a node that is gone is lost, and noticed as late as its silence is."""
        noticed = self.now() + self._spec.execution.heartbeat
        for attempt in list(self._on.pop(node.name, {}).values()):
            task = attempt.task
            attempt.over = True
            self.tally.lost += 1
            self.tally.worked += self.now() - attempt.began
            self.tally.wasted += self.now() - attempt.saved
            del self._running[task.trial]
            over = Over(task.trial, task.attempt, "lost", "its node was taken away", "NodePreempted", noticed)
            self.agenda.at(noticed, lambda over=over: self._messages.append(over))  # type: ignore[misc]

    def _change(self) -> None:
        """Slots came or went: there may be room for what waits."""
        self._grown = True
        self._measure()

    def _measure(self) -> None:
        self.usage.level(self.now(), self._nodes.up, len(self._running))


def _patience(spec: StudySpec) -> float:
    """How far the clock may jump at most, in seconds: a limit of time is noticed within a hundredth of it."""
    budget, execution = spec.budget, spec.execution
    limits = (budget.wall_time, budget.trial_time, execution.step_time, execution.report_time)
    return min((limit / 100 for limit in limits if limit is not None), default=math.inf)
