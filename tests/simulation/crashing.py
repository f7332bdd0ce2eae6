"""A whole study in as many processes as it takes, and how it differs from the one that nothing ever happened to."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple
from unittest.mock import patch

import tune_tasks as tt
from tests.simulation import study as whole
from tests.simulation.checker import Checker
from tests.simulation.determined import determined
from tune_tasks.errors import Unavailable
from tune_tasks.events import decode
from tune_tasks.study import Trial
from tune_tasks.testing.faults import Crash, Fault, Plan, SharedObjects

WRITES = {"create", "replace", "delete", "upload"}
BETWEEN_SNAPSHOTS = 5
TROUBLE = [Fault.FAIL, Fault.CONFLICT, Fault.UNCLEAR, Fault.LOST, Fault.LATE]


class Run:
    """One study, in as many processes as it takes; each is killed, or fails, and the next goes on."""

    def __init__(self, flow: str, plan: Plan = lambda _: None, *, patient: bool = False) -> None:
        self.shared, self.acknowledged, self.results = SharedObjects(plan), [], {}
        self.checker = Checker(self.shared)
        self.shared.turn = self.checker.before
        self.spec, self.patient = whole.spec(execution={"flow": flow}), patient
        self.processes = self.failures = 0
        with determined(0) as self.clock, patch("tune_tasks.store.log.SNAPSHOT_EVERY", BETWEEN_SNAPSHOTS):
            while not self._process():
                pass
        self.checker.finish()
        self.checker.acknowledged(self.acknowledged)

    def _process(self) -> bool:
        """A process from its start to its end, or to its death; false where another one has to go on."""
        self.processes += 1
        assert self.processes < 4, "it is killed no more, but comes to no end"
        objects = self.shared.process(f"process {self.processes}")
        study: Any = self.spec
        with whole.process(whole.patient(objects, self.clock) if self.patient else objects, self.acknowledged):
            while True:
                try:
                    study = tt.open_study(study)
                    whole.go_on(study, self._told)
                except Crash:
                    return False
                except Unavailable:  # an orchestrator, or a person, tries the same step again
                    self.failures += 1
                    assert self.failures < 4, "nothing fails any more, but it comes to no end"
                else:
                    return True

    def _told(self, key: str, result: Any) -> None:
        assert self.results.setdefault(key, result) == result, f"{key} has two results"

    @property
    def outcome(self) -> dict[str, Any]:
        """What must be the same however often the study was killed: not times, attempts, and random names."""
        state = self.checker.state
        return {
            "proposed": [(trial.number, trial.params) for trial in state.trials],
            "trials": [
                (t.number, t.params, t.state, t.value, t.best_step, t.budget, t.failures, t.why, _error(t))
                for t in state.trials
            ],
            "curves": [[report.metrics for report in trial.reports] for trial in state.trials],
            "steps": {key: result for key, result in state.steps.items() if "promote" not in key},
            "why": [
                (event.key, *((d.trial, d.reason) for d in (*event.advances, *event.prunes)))
                for event in self.events()
                if event.type == "judged"
            ],
            "batches": [(e.key, e.proposals, e.assignments) for e in self.events() if e.type == "planned"],
            "model": [
                {name: model[name] for name in ("trial", "step", "value", "digest", "reason", "promoted", "params")}
                for model in state.promotions
            ],
        }

    @property
    def lost(self) -> int:
        """How often a trial was not to blame for its end."""
        return sum(trial.losses for trial in self.checker.state.trials)

    def events(self) -> Iterator[Any]:
        """Everything in the log, in order."""
        return map(decode, self.checker.lines)


def _error(trial: Trial) -> str | None:
    """Why a trial failed; one that went on after a failure of the store may still tell of that."""
    return trial.error.splitlines()[-1] if trial.state == "failed" and trial.error else None


@cache
def quiet(flow: str) -> Run:
    """The one that nothing ever happened to."""
    return Run(flow)


def calls(flow: str, fault: Fault) -> list[int]:
    """The calls that a fault makes a difference to: what comes too late for a reader is what he never gets."""
    first = {Fault.CRASH, Fault.FAIL}
    return [a.call.number for a in quiet(flow).shared.history if fault in first or a.call.name in WRITES]


class Case(NamedTuple):
    """What happens in a run: faults by the number of the call; `trouble` is the seed of many, met with patience."""

    flow: str
    faults: dict[int, Fault]
    trouble: int | None = None


def difference(case: Case) -> str:
    """Plays a case; says what is not as in the quiet run, "" where all is."""
    chance = random.Random(case.trouble)

    def plan(call: Any) -> Fault | None:
        if case.trouble is not None and chance.random() < 0.3:
            return chance.choice(TROUBLE)
        return case.faults.get(call.number)

    try:
        run = Run(case.flow, plan, patient=case.trouble is not None)
    except Exception as error:  # noqa: BLE001  # it comes from another process, where its traceback is lost
        return f"{case}: {type(error).__name__}: {error}"
    killed = sum(fault.name.startswith("CRASH") for fault in case.faults.values())
    if run.processes > 1 + killed or (case.trouble is not None and run.failures):
        return f"{case}: it took {run.processes} processes and failed {run.failures} times"
    true, found = quiet(case.flow).outcome, run.outcome
    if case.flow == "streaming" and run.lost and not run.failures:
        # A trial that lost its checkpoint waits for its turn again, so a stream may decide in another order.
        true, found = ({"proposed": outcome["proposed"]} for outcome in (true, found))
    wrong = [name for name in true if true[name] != found[name]]
    return "".join(f"{case}: {name} is {found[name]}, not {true[name]}\n" for name in wrong)
