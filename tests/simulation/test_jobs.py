"""A study that a job drives, killed at every call of the job's driver to the store, loses nothing and ends the same."""

from __future__ import annotations

from typing import Any

import pytest

import tune_tasks as tt
from tests.execution.puppet import Puppet, steadily
from tests.simulation.checker import Checker
from tests.simulation.study import spec
from tune_tasks.events import Requested, decode
from tune_tasks.execution.serving import JobDriver
from tune_tasks.steps import make_decider
from tune_tasks.store.aside import AtOnce
from tune_tasks.store.log import StudyLog
from tune_tasks.studies import Study, append
from tune_tasks.testing.faults import KILLS, Crash, Fault, SharedObjects


class Jobs:
    """A pipeline and the drivers of its jobs, in virtual time: a driver that is killed is followed by another."""

    def __init__(self, fault: Fault | None = None, number: int = 0) -> None:
        self.drivers = 0
        self.shared = SharedObjects(lambda call: fault if self._hit(call, number) else None)
        checker = Checker(self.shared)
        self.shared.turn = checker.before
        self.puppet = Puppet(steadily(lambda trial: 7.0 if trial == 1 else 1.0))
        steps = self.shared.process("steps")
        log = StudyLog(steps, aside=AtOnce())
        self.study = self._open(log, create=True)
        while not self.study.state.done:
            self._drive()
        checker.finish()
        self.outcome = {
            "trials": [(t.number, t.params, t.value, t.budget, t.state) for t in self.study.refresh().trials],
            "curves": [[report.metrics for report in trial.reports] for trial in self.study.trials],
        }
        self.events = [decode(line) for line in checker.lines]

    def _hit(self, call: Any, number: int) -> bool:
        mine = call.process == "driver 1"
        self.calls = getattr(self, "calls", 0) + mine
        return mine and self.calls == number

    def _open(self, log: StudyLog, *, create: bool = False) -> Study:
        if create:
            from tune_tasks.events import Created

            small = spec(execution={"runner": "job", "batch": 3, "linger": 5}, budget={"trials": 5, "concurrency": 2})
            small = small.model_copy(update={"scheduler": type(small.scheduler)(name="none", max_budget=3)})
            log.create(Created(study="0" * 32, spec=small.record(), folder=None, time=1.0))
        study = Study(log.objects)
        study.log = log
        study.keep(log.load())
        study.clock = self.puppet.clock
        return study

    def _drive(self) -> None:
        """One job, until it ends or is killed; the pipeline goes on whenever the job's runner waits."""
        self.drivers += 1
        assert self.drivers < 30, "it comes to no end"
        objects = self.shared.process(f"driver {self.drivers}")
        self.puppet = puppet = Puppet(steadily(lambda trial: 7.0 if trial == 1 else 1.0))
        puppet.now = self.study.state.now + 1000.0
        self.study.clock = puppet.clock
        wait = puppet.wait

        def wait_and_go_on(timeout: float) -> None:
            wait(timeout)
            self._go_on()

        puppet.wait = wait_and_go_on  # type: ignore[method-assign]
        self._go_on()
        try:
            mine = self._open(StudyLog(objects, aside=AtOnce()))
            driver = JobDriver(mine.log, mine.state, puppet, make_decider(mine), owner="job", clock=puppet.clock)
            driver.serve()
        except Crash:
            pass

    def _go_on(self) -> None:
        """What the pipeline does: ask for the batch, and when its launch step has ended, evaluate and sample."""
        batch = tt.sample(self.study)
        if f"{batch.id}/launch" in self.study.refresh().steps:
            tt.evaluate_and_prune(self.study, batch)
            batch = tt.sample(self.study)
        if not self.study.state.done:
            append(self.study, lambda state: None if batch.id in state.requests else self._request(batch.id))

    def _request(self, batch: str) -> Requested:
        return Requested(batch=batch, job=1, time=self.study.now())


@pytest.fixture(scope="module")
def quiet() -> Jobs:
    return Jobs()


def test_the_study_has_what_can_be_lost(quiet: Jobs) -> None:
    assert quiet.drivers == 1
    assert {event.type for event in quiet.events} >= {"requested", "opened", "started", "launched", "judged"}
    launched = [event for event in quiet.events if event.type == "launched"]
    assert any("running" in event.states for event in launched), "a straggler is carried over"


@pytest.mark.parametrize("kill", sorted(KILLS, key=str), ids=lambda kill: kill.name)
def test_killed_at_every_call_to_its_store_the_next_driver_ends_the_study_as_if_it_had_never_been(
    quiet: Jobs, kill: Fault
) -> None:
    wrong = []
    for number in range(1, quiet.calls + 1):
        run = Jobs(kill, number)
        if run.drivers > 2 or run.outcome != quiet.outcome:
            wrong.append((number, run.drivers, run.outcome))
    assert not wrong, f"{len(wrong)} of {quiet.calls} runs ended otherwise, first: {wrong[0]}, not {quiet.outcome}"
