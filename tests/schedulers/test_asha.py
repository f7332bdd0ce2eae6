"""ASHA against traces worked by hand from Algorithm 2 of Li et al. (arXiv 1810.05934)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tune_tasks.decide import Policy
from tune_tasks.events import Advance, Prune, Reports
from tune_tasks.samplers.random import RandomSampler
from tune_tasks.schedulers.asha import ASHA
from tune_tasks.testing.histories import History, study_spec
from tune_tasks.testing.schedulers import SPACE, SchedulerContract, curve
from tune_tasks.testing.simulation import Simulation


class TestASHA(SchedulerContract):
    @pytest.fixture
    def scheduler(self):
        return ASHA(max_budget=27)


class TestASHAWithUnevenRungs(SchedulerContract):
    @pytest.fixture
    def scheduler(self):
        return ASHA(min_budget=2, max_budget=27, reduction_factor=4)


class TestASHAWithOneRung(SchedulerContract):
    @pytest.fixture
    def scheduler(self):
        return ASHA(min_budget=27, max_budget=27)


def study(values, budget=1, mode="min"):
    """A study whose trials have just reported these values at the first rung."""
    history = History(study_spec(SPACE, mode=mode, budget={"trials": 1000}))
    for number in history.plan([{"x": 0.5}] * len(values), budget):
        history.run(number, [values[number]])
    return history


def advances(decisions):
    return [(decision.trial, decision.budget) for decision in decisions if isinstance(decision, Advance)]


def test_a_trace_worked_by_hand_from_the_rule_of_the_paper():
    """Eta 3, rungs 1, 3, 9: at each arrival the best floor(n / 3) of a rung go on, those that have not yet."""
    scheduler, history = ASHA(max_budget=9), study([])
    # At the first rung. Trial 3 goes up as the best of four, though trial 1 went up as the best of three before it.
    lower = [(0.5, []), (0.4, []), (0.6, [1]), (0.3, [3]), (0.7, []), (0.2, [5]), (0.9, []), (0.8, []), (0.1, [8])]
    for number, (value, expected) in enumerate(lower):
        history.plan([{"x": 0.5}], 1)
        history.run(number, [value])
        decisions = scheduler.review(history.state, closing=False)
        assert advances(decisions) == [(trial, 3) for trial in expected], f"after trial {number}"
        history.decide(decisions)
    # At the second rung: best of three is trial 5, best of four is trial 8.
    for number, value, expected in ((1, 0.35, []), (3, 0.25, []), (5, 0.15, [5]), (8, 0.05, [8])):
        history.run(number, [value + 0.1, value])
        decisions = scheduler.review(history.state, closing=False)
        assert advances(decisions) == [(trial, 9) for trial in expected], f"after trial {number}"
        history.decide(decisions)
    assert history.state.trials[8].last


def test_a_trial_that_was_overtaken_at_the_lower_rung_still_counts_there():
    scheduler, history = ASHA(max_budget=9), study([0.5, 0.6, 0.7])
    history.decide(scheduler.review(history.state, closing=False))
    assert history.state.trials[0].target == 3
    for number, value in enumerate([0.1, 0.2, 0.3], 3):
        history.plan([{"x": 0.5}], 1)
        history.run(number, [value])
    assert advances(scheduler.review(history.state, closing=False)) == [(3, 3), (4, 3)]


def test_the_top_rung_is_looked_at_first():
    scheduler, history = ASHA(max_budget=9), study([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    history.decide(scheduler.review(history.state, closing=False))
    for number in (0, 1, 2):
        history.run(number, [0.1, 0.1 + number])
    for number in range(9, 12):
        history.plan([{"x": 0.5}], 1)
        history.run(number, [0.0])
    assert advances(scheduler.review(history.state, closing=False)) == [(0, 9), (9, 3), (10, 3), (11, 3)]


def test_the_sizes_of_the_rungs_are_those_of_a_synchronous_bracket_when_all_wait():
    """81 trials, eta 3, 1 to 81 steps: 27, 9, 3 and 1 advance, the first column of Hyperband's table."""
    scheduler, history = ASHA(max_budget=81), study([number / 100 for number in range(81)])
    rungs = (1, 3, 9, 27, 81)
    for (budget, following), expected in zip(pairwise(rungs), (27, 9, 3, 1), strict=True):
        made = scheduler.review(history.state, closing=False)
        assert advances(made) == [(number, following) for number in range(expected)]
        history.decide(made)
        for number in range(expected):
            history.run(number, [number / 100] * (following - budget))
    assert history.state.trials[0].state == "completed"


def test_of_equal_trials_the_earlier_advances():
    assert advances(ASHA(max_budget=9).review(study([0.5] * 7).state, closing=False)) == [(0, 3), (1, 3)]


def test_a_larger_metric_is_better_where_the_spec_says_so():
    assert advances(ASHA(max_budget=9).review(study([0.1, 0.9, 0.5], mode="max").state, closing=False)) == [(1, 3)]


def test_a_trial_counts_by_its_best_value_up_to_the_rung():
    history = study([], 3)
    for number, values in enumerate([[0.1, 5.0, 5.0], [0.2, 0.2, 0.2], [0.3, 0.3, 0.3]]):
        history.plan([{"x": 0.5}], 3)
        history.run(number, values)
    assert advances(ASHA(min_budget=3, max_budget=9).review(history.state, closing=False)) == [(0, 9)]


def test_a_trial_that_went_on_counts_at_a_lower_rung_by_what_it_had_there():
    scheduler, history = ASHA(max_budget=9), study([0.5, 0.4, 0.6])
    history.decide(scheduler.review(history.state, closing=False))
    history.run(1, [0.1, 0.0])
    history.plan([{"x": 0.5}], 1)
    history.run(3, [0.3])
    assert advances(scheduler.review(history.state, closing=False)) == [(3, 3)]


def test_failed_trials_never_count():
    history = study([0.5, 0.6, 0.7])
    for number in history.plan([{"x": 0.5}] * 3, 1):
        history.start(number)
        history.report(number, 0.01)
        history.end(number, "failed")
    assert advances(ASHA(max_budget=9).review(history.state, closing=False)) == [(0, 3)]


def test_a_trial_without_a_value_is_last_and_is_not_left_waiting():
    history = study([0.5, 0.6])
    (number,) = history.plan([{"x": 0.5}], 1)
    history.start(number)
    history.apply(Reports(trial=[number], attempt=[1], step=[1], time=[1.0], metrics={"other": [0.0]}))
    history.end(number)
    decisions = {decision.trial: decision.reason for decision in ASHA(max_budget=9).review(history.state, closing=True)}
    assert decisions[number] == "rank 3 of 3 at 1 step, the top 1 advances"


def test_pruned_trials_count_at_the_rungs_that_they_reached():
    history = study([0.1, 0.2, 0.3])
    history.prune(0, 1)
    assert ASHA(max_budget=9).review(history.state, closing=False) == []


def test_the_reason_tells_rank_rung_and_how_many_advance():
    decisions = ASHA(max_budget=9).review(study([0.3, 0.1, 0.2, 0.9, 0.8, 0.7]).state, closing=True)
    assert {decision.trial: decision.reason for decision in decisions} == {
        1: "rank 1 of 6 at 1 step, the top 2 advance",
        2: "rank 2 of 6 at 1 step, the top 2 advance",
        0: "rank 3 of 6 at 1 step, the top 2 advance",
        5: "rank 4 of 6 at 1 step, the top 2 advance",
        4: "rank 5 of 6 at 1 step, the top 2 advance",
        3: "rank 6 of 6 at 1 step, the top 2 advance",
    }
    assert {decision.trial for decision in decisions if isinstance(decision, Prune)} == {0, 3, 4, 5}


def test_when_closing_a_rung_that_sends_trials_up_keeps_those_above_it_waiting():
    scheduler, history = ASHA(max_budget=9), study([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    history.decide(scheduler.review(history.state, closing=False))
    history.run(0, [0.1, 0.1])
    history.run(1, [0.2, 0.2])
    for number in history.plan([{"x": 0.5}] * 3, 1):
        history.run(number, [0.0])
    decisions = scheduler.review(history.state, closing=True)
    assert advances(decisions) == [(0, 9), (6, 3), (7, 3), (8, 3)]
    assert {decision.trial for decision in decisions if isinstance(decision, Prune)} == {2, 3, 4, 5}


def test_when_closing_a_small_study_still_gets_a_complete_trial():
    scheduler, history = ASHA(max_budget=9), study([0.2, 0.1])
    assert scheduler.review(history.state, closing=False) == []
    history.decide(scheduler.review(history.state, closing=True))
    assert [trial.state for trial in history.state.trials] == ["pruned", "queued"]


def test_the_rungs_end_exactly_at_the_largest_budget():
    for scheduler, expected in (
        (ASHA(max_budget=27), [1, 3, 9, 27]),
        (ASHA(max_budget=30), [1, 3, 9, 27, 30]),
        (ASHA(min_budget=5, max_budget=100, reduction_factor=4), [5, 20, 80, 100]),
        (ASHA(min_budget=7, max_budget=7), [7]),
        (ASHA(max_budget=3**30), [3**k for k in range(31)]),
    ):
        history = History(study_spec(SPACE, budget={"trials": 2}))
        (number,) = history.plan([{"x": 0.5}], scheduler.first_budget(0))
        assert list(scheduler._rungs()) == expected
        assert history.state.trials[number].target == expected[0]


def test_most_of_the_work_goes_to_few_trials():
    spec = study_spec(SPACE, budget={"trials": 81})
    state = Simulation(spec, Policy(RandomSampler(), ASHA(max_budget=27)), curve).run()
    steps = sum(trial.budget for trial in state.trials)
    assert steps < 0.25 * 81 * 27
    assert sum(trial.budget == 1 for trial in state.trials) > 40
