"""A schedule on the model store, killed anywhere: a run, its extension, its final training, and the run after it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, NamedTuple
from unittest.mock import patch

import tune_tasks as tt
from tests.simulation import study as whole
from tests.simulation.crashing import BETWEEN_SNAPSHOTS, WRITES
from tests.simulation.determined import determined
from tests.simulation.study import OPENERS, Below
from tune_tasks.errors import Unavailable
from tune_tasks.store import Objects
from tune_tasks.studies import find_study
from tune_tasks.testing.faults import Crash, Fault, Plan, SharedObjects


def spec(**changes: Any) -> tt.StudySpec:
    """Small: what is killed here is what comes after a study, and not the study."""
    return whole.spec(
        name="week",
        budget={"trials": 3, "concurrency": 1},
        space={"x": {"type": "float", "low": 0.0, "high": 0.6}, "n": {"type": "categorical", "choices": [1, 2]}},
        scheduler={"name": "asha", "min_budget": 1, "max_budget": 2, "reduction_factor": 2},
        final={"seeds": 2, "ensemble": True},
        retrain={"warm_start": 2},
        **changes,
    )


def schedule() -> list[tt.Study]:
    """From wherever it was killed to its end: two runs of a schedule, the first one extended in between."""
    first = tt.retrain(spec(), run="1", data="week 1").study if _begun("1") is None else _begun("1")
    assert first is not None
    if not first.state.promotions:
        whole.go_on(first)
    tt.extend(first, trials=5, max_budget=4, space={"x": {"high": 0.9}, "k": 1}, sampler={"name": "random", "seed": 9})
    whole.go_on(first)
    final = tt.train_final(first)
    tt.promote_best(final)
    second = tt.retrain(spec(), run="2", data="week 2").study
    assert second is not None
    whole.go_on(second)
    return [first, final, second]


def _begun(run: str) -> tt.Study | None:
    found = find_study(f"model://shared/week-{run}")
    return found if found is not None and found.state.promotions else None


class Run:
    """The schedule in as many processes as it takes; each but the last is killed, or fails."""

    def __init__(self, plan: Plan = lambda _: None) -> None:
        self.shared, self.processes, self.failures = SharedObjects(plan), 0, 0
        self.studies: list[tt.Study] = []
        with determined(0) as clock, patch("tune_tasks.store.log.SNAPSHOT_EVERY", BETWEEN_SNAPSHOTS):
            while not self._process(clock):
                assert self.processes < 4, "it is killed no more, but comes to no end"

    def _process(self, clock: Any) -> bool:
        self.processes += 1
        objects = self.shared.process(f"process {self.processes}")
        with _opened(objects):
            try:
                self.studies = schedule()
            except (Crash, Unavailable):
                return False
        return True

    @property
    def outcome(self) -> dict[str, Any]:
        """What must be the same however often it was killed."""
        with _opened(self.shared.process("reader")):
            return {study.url: _told(find_study(study.url)) for study in self.studies}


@contextmanager
def _opened(objects: Objects) -> Iterator[None]:
    with whole.process(objects, []), ExitStack() as stack:
        stack.enter_context(patch("importlib.metadata.packages_distributions", _packages))
        for module in OPENERS:
            stack.enter_context(patch(f"tune_tasks.{module}.open_objects", lambda url: Below(objects, url)))
        yield


_packages = cache(importlib.metadata.packages_distributions)
"""A promotion asks for them, which takes a hundred times as long as all the rest."""


def _told(study: tt.Study | None) -> dict[str, Any]:
    assert study is not None
    state = study.state
    return {
        "spec": state.spec.record(),
        "parent": state.parent,
        "proposed": [(trial.params, trial.reason) for trial in state.trials],
        "trials": [(t.number, t.state, t.value, t.best_step, t.budget, t.why) for t in state.trials],
        "curves": [[report.metrics for report in trial.reports] for trial in state.trials],
        "models": [(m["promoted"], m["trial"], m["step"], m["value"], m["reason"]) for m in state.promotions],
        "saved": [(saved.trial, saved.step, saved.reference.size) for saved in state.saved()],
        "done": (state.done, state.reason),
    }


@cache
def quiet() -> Run:
    """The one that nothing ever happened to."""
    return Run()


def calls(fault: Fault) -> list[int]:
    """The calls that a fault makes a difference to."""
    return [a.call.number for a in quiet().shared.history if fault is Fault.CRASH or a.call.name in WRITES]


class Case(NamedTuple):
    """A fault at one call."""

    number: int
    fault: Fault


def difference(case: Case) -> str:
    """Plays a case; says what is not as in the quiet run, "" where all is."""
    try:
        run = Run(lambda call: case.fault if call.number == case.number else None)
        found, true = run.outcome, quiet().outcome
    except Exception as error:  # noqa: BLE001  # it comes from another process, where its traceback is lost
        return f"{case}: {type(error).__name__}: {error}"
    wrong = [(url, name) for url in true for name in true[url] if found.get(url, {}).get(name) != true[url][name]]
    return "".join(f"{case}: {url}: {name} is {found[url][name]}, not {true[url][name]}\n" for url, name in wrong)
