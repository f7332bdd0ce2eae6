"""A whole study, killed at every call to its store, or failed at any, ends as the one that nothing ever happened to."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.simulation.crashing import Case, Run, calls, difference, quiet
from tune_tasks.testing.faults import KILLS, Fault

FLOWS = ["rounds", "streaming"]


@pytest.fixture(scope="module")
def cores() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


def check(cores: ProcessPoolExecutor, cases: Iterable[Case]) -> None:
    wrong = [found for found in cores.map(difference, cases, chunksize=10) if found]
    assert not wrong, "\n".join([f"{len(wrong)} runs ended otherwise, first:", *wrong[:3]])


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("kill", [Fault.CRASH, Fault.CRASH_AFTER, Fault.CRASH_LATE], ids=lambda kill: kill.name)
def test_killed_at_every_call_it_ends_as_if_it_had_never_been(
    cores: ProcessPoolExecutor, flow: str, kill: Fault
) -> None:
    check(cores, [Case(flow, {number: kill}) for number in calls(flow, kill)])


@pytest.mark.parametrize("flow", FLOWS)
def test_killed_twice_it_ends_as_if_it_had_never_been(cores: ProcessPoolExecutor, flow: str) -> None:
    chance, kills, cases = random.Random(flow), sorted(KILLS, key=str), []
    for _ in range(40):
        first = chance.randrange(1, quiet(flow).shared.calls)
        second = first + chance.choice([chance.randint(1, 9), chance.randint(1, 60)])
        cases.append(Case(flow, {first: chance.choice(kills), second: chance.choice(kills)}))
    check(cores, cases)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.UNCLEAR, Fault.LOST, Fault.LATE], ids=lambda fault: fault.name)
def test_a_call_that_fails_for_good_costs_a_step_run_again_and_nothing_else(
    cores: ProcessPoolExecutor, flow: str, fault: Fault
) -> None:
    every = 1 if flow == "rounds" else 3  # the calls are the same ones
    check(cores, [Case(flow, {number: fault}) for number in calls(flow, fault)[::every]])


@pytest.mark.parametrize("flow", FLOWS)
def test_calls_that_are_repeated_until_they_succeed_are_not_noticed(cores: ProcessPoolExecutor, flow: str) -> None:
    check(cores, [Case(flow, {}, trouble=seed) for seed in range(20)])


@pytest.fixture
def stranger() -> Iterator[None]:
    """A thread that an earlier test left, and that reads the clock."""
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            time.monotonic()
            time.sleep(0)

    thread = threading.Thread(target=read)
    thread.start()
    yield
    done.set()
    thread.join()


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize("flow", FLOWS)
def test_the_same_faults_give_the_same_bytes(flow: str) -> None:
    for number in (20, 40, 60):
        plan = {number: Fault.CRASH_AFTER}
        first, second = (Run(flow, lambda call, plan=plan: plan.get(call.number)) for _ in range(2))
        assert first.shared.objects == second.shared.objects


def test_the_study_has_what_can_be_lost() -> None:
    """What the runs are about: rounds, prunes, failures, checkpoints kept and discarded, snapshots, a model."""
    state = quiet("rounds").checker.state
    assert {trial.state for trial in state.trials} == {"completed", "pruned", "failed"}
    assert state.rounds["main"] >= 3
    assert len(state.promotions) == 1
    kinds = {event.type for event in quiet("rounds").events()}
    assert kinds == {
        "created", "planned", "opened", "started", "reports", "checkpointed", "discarded", "ended", "launched",
        "judged", "promoting", "promoted",
    }  # fmt: skip
    written = [answer.call.key for answer in quiet("rounds").shared.history if answer.call.name == "replace"]
    assert sum(key.startswith("snap/") for key in written) >= 3
