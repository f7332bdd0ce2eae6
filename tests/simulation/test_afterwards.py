"""A study that is extended, trained finally and followed by the next run, killed at every call to its store."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.simulation.afterwards import Case, calls, difference, quiet
from tune_tasks.testing.faults import Fault


@pytest.fixture(scope="module")
def cores() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


def check(cores: ProcessPoolExecutor, cases: Iterable[Case]) -> None:
    wrong = [found for found in cores.map(difference, cases, chunksize=10) if found]
    assert not wrong, "\n".join([f"{len(wrong)} runs ended otherwise, first:", *wrong[:3]])


@pytest.mark.parametrize("kill", [Fault.CRASH, Fault.CRASH_AFTER, Fault.CRASH_LATE], ids=lambda kill: kill.name)
def test_killed_at_every_call_what_follows_a_study_is_as_if_it_had_never_been(
    cores: ProcessPoolExecutor, kill: Fault
) -> None:
    check(cores, [Case(number, kill) for number in calls(kill)])


@pytest.mark.parametrize("fault", [Fault.UNCLEAR, Fault.LOST], ids=lambda fault: fault.name)
def test_a_reply_that_is_lost_costs_nothing(cores: ProcessPoolExecutor, fault: Fault) -> None:
    check(cores, [Case(number, fault) for number in calls(fault)[::3]])


def test_what_follows_has_what_can_be_lost() -> None:
    """What the runs are about: an extension that reopens, an ensemble, models kept and replaced, a warm start."""
    first, final, second = quiet().outcome.values()
    assert [model[0] for model in first["models"]] == [True, True]
    assert max(trial[4] for trial in first["trials"]) == 4
    assert len(first["trials"]) == 5
    assert [saved[0] for saved in final["saved"]] == [2]
    assert final["parent"] == second["parent"] == "model://shared/week-1"
    assert second["proposed"][0][1].startswith("from trial 4 of week-1: loss ")
