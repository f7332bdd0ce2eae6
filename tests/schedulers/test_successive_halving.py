"""Successive halving waits for every trial at a rung, then decides all of it at once."""

from __future__ import annotations

import pytest

from tune_tasks.events import Advance, Prune
from tune_tasks.schedulers.successive_halving import SuccessiveHalving
from tune_tasks.testing.histories import History, study_spec
from tune_tasks.testing.schedulers import SPACE, SchedulerContract


class TestSuccessiveHalving(SchedulerContract):
    order_free = True

    @pytest.fixture
    def scheduler(self):
        return SuccessiveHalving(max_budget=27)


SCHEDULER = SuccessiveHalving(max_budget=9)


def study(trials=6):
    history = History(study_spec(SPACE, budget={"trials": trials}))
    history.plan([{"x": 0.5}] * min(trials, 6), 1)
    return history


def named(decisions, kind):
    return [decision.trial for decision in decisions if isinstance(decision, kind)]


def test_nothing_is_decided_before_the_last_trial_of_the_rung():
    history = study()
    for number in range(5):
        history.run(number, [number])
    assert SCHEDULER.review(history.state, closing=False) == []
    history.run(5, [5.0])
    decisions = SCHEDULER.review(history.state, closing=False)
    assert (named(decisions, Advance), named(decisions, Prune)) == ([0, 1], [2, 3, 4, 5])
    assert decisions[5].reason == "rank 6 of 6 at 1 step, the top 2 advance"


def test_it_waits_for_trials_that_are_not_sampled_yet():
    history = study(trials=7)
    for number in range(6):
        history.run(number, [number])
    assert SCHEDULER.review(history.state, closing=False) == []
    assert SCHEDULER.review(history.state, closing=True) != []


def test_a_sampler_that_has_nothing_more_completes_the_bracket():
    history = study(trials=7)
    for number in range(6):
        history.run(number, [number])
    exhausted = history.events[1].model_copy(
        update={"proposals": (), "assignments": (), "exhausted": True, "batch": "last"}
    )
    history.apply(exhausted)
    assert SCHEDULER.review(history.state, closing=False) != []


def test_a_failed_trial_is_not_waited_for_and_does_not_count():
    history = study()
    for number in range(5):
        history.run(number, [number])
    history.run(5, [], "failed")
    decisions = SCHEDULER.review(history.state, closing=False)
    assert (named(decisions, Advance), named(decisions, Prune)) == ([0], [1, 2, 3, 4])


def test_a_trial_that_is_tried_again_is_waited_for():
    history = study()
    for number in range(5):
        history.run(number, [number])
    history.start(5)
    history.report(5, 0.0)
    history.end(5, "lost", retry=True)
    assert SCHEDULER.review(history.state, closing=False) == []


def test_the_next_rung_waits_for_those_that_advanced():
    history = study()
    for number in range(6):
        history.run(number, [number])
    history.decide(SCHEDULER.review(history.state, closing=False))
    history.run(0, [0.0, 0.0])
    assert SCHEDULER.review(history.state, closing=False) == []
    history.run(1, [1.0, -1.0])
    decisions = SCHEDULER.review(history.state, closing=False)
    assert (named(decisions, Advance), named(decisions, Prune)) == ([1], [0])
    assert decisions[0].reason == "rank 2 of 2 at 3 steps, the top 1 advances"
