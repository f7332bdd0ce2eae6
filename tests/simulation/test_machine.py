"""Hypothesis plays the world: it looks for the few moves that break a promise, and says which they were."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.simulation import test_twins as twins
from tests.simulation.checker import Violation
from tests.simulation.vandal import HARMLESS, spoil
from tests.simulation.world import world
from tune_tasks.testing.faults import KILLS, Call, Fault

EXAMPLES = int(os.environ.get("SOAK_EXAMPLES", "60"))
ACTORS = st.integers(0, 3)
OTHERS = sorted((fault for fault in Fault if fault not in KILLS), key=str)


class Sharing(RuleBasedStateMachine):
    """Up to four processes on one study, moved call by call."""

    def __init__(self) -> None:
        super().__init__()
        self.stack, self.intact = ExitStack(), True

    @initialize(seed=st.integers(0, 999))
    def begin(self, seed: int) -> None:
        self.world = self.stack.enter_context(world(seed, log=twins.LOG))
        self.world.pipeline("main")
        self.world.pipeline("main", patient=True)

    def room(self) -> bool:
        return len(self.world.alive) < 4

    def alive(self) -> bool:
        return bool(self.world.alive)

    @precondition(room)
    @rule(run=st.sampled_from(["main", "night"]), patient=st.booleans())
    def a_pipeline_comes(self, run: str, patient: bool) -> None:
        self.world.pipeline(run, patient=patient)

    @precondition(room)
    @rule()
    def a_reader_comes(self) -> None:
        self.world.reader()

    @precondition(alive)
    @rule(who=ACTORS, calls=st.sampled_from([1, 2, 5, 20, 60]))
    def moves(self, who: int, calls: int) -> None:
        self.intact = False
        self.world.move(self.world.alive[who % len(self.world.alive)], calls)
        self.intact = True

    @precondition(alive)
    @rule(who=ACTORS, kill=st.sampled_from(sorted(KILLS, key=str)))
    def is_killed(self, who: int, kill: Fault) -> None:
        """At its next call but one: at the next it waits already."""
        self._strike(kill)
        self.moves(who, 2)

    @precondition(alive)
    @rule(who=ACTORS, fault=st.sampled_from(OTHERS))
    def is_failed(self, who: int, fault: Fault) -> None:
        self._strike(fault)
        self.moves(who, 2)

    @rule(how=st.sampled_from(HARMLESS))
    def something_is_spoilt(self, how: str) -> None:
        spoil(how, self.world.shared, self.world.checker, self.world.random)

    @invariant()
    def what_was_there_is_there(self) -> None:
        if hasattr(self, "world"):
            self.world.checker.follow()

    def _strike(self, fault: Fault) -> None:
        """The next call that begins gets this fault."""
        faults = [fault]

        def strike(_: Call) -> Fault | None:
            return faults.pop() if faults else None

        self.world.fault = strike

    def teardown(self) -> None:
        with self.stack:
            if self.intact and hasattr(self, "world"):
                self.world.finish()


def search(examples: int, **options: Any) -> None:
    """Lets hypothesis play; raises what it found, in as few moves as it could."""
    logging.disable(logging.WARNING)
    try:
        run_state_machine_as_test(
            Sharing,
            settings=settings(
                max_examples=examples,
                stateful_step_count=40,
                suppress_health_check=list(HealthCheck),
                deadline=None,
                **options,
            ),
        )
    finally:
        logging.disable(logging.NOTSET)


def test_whatever_the_moves_no_promise_is_broken() -> None:
    search(EXAMPLES)


@pytest.mark.parametrize("twin", [twins.unfenced, twins.keyless, twins.forgetful_store])
def test_the_search_finds_a_broken_twin(twin, monkeypatch: pytest.MonkeyPatch) -> None:
    twin(monkeypatch)
    with pytest.raises(Violation):
        search(100, phases=[Phase.generate], database=None)
