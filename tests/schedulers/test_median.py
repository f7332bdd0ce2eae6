"""Median stopping: the rule, its two guards, and that its memo never shows."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_tasks.schedulers import averages
from tune_tasks.schedulers.averages import median_of_others
from tune_tasks.schedulers.median import MedianStopping
from tune_tasks.testing.histories import History, study_spec
from tune_tasks.testing.schedulers import SPACE, SchedulerContract


class TestMedianStopping(SchedulerContract):
    @pytest.fixture
    def scheduler(self):
        return MedianStopping(max_budget=27)


class TestMedianStoppingThatLetsTheObjectiveDecide(SchedulerContract):
    @pytest.fixture
    def scheduler(self):
        return MedianStopping(grace=1, min_trials=1)


def study(curves, mode="min"):
    """A study whose trials run and have reported these curves."""
    history = History(study_spec(SPACE, mode=mode, budget={"trials": 1000}))
    for number in history.plan([{"x": 0.5}] * len(curves)):
        history.start(number)
        history.report(number, *curves[number])
    return history


def verdict(history, number, **options):
    return MedianStopping(**{"grace": 1, "min_trials": 1, **options}).watch(history.state, history.state.trials[number])


def test_the_rule_worked_by_hand():
    """Averages over 2 steps: 2, 3, 4, 10; their median is 3.5, and 3.6 was the best of the last trial."""
    history = study([[1, 3], [2, 4], [3, 5], [9, 11], [8, 3.6]])
    assert verdict(history, 4).reason == "best 3.6 after 2 steps is worse than 3.5, the median of 4 other trials"
    assert verdict(study([[1, 3], [2, 4], [3, 5], [9, 11], [8, 3.4]]), 4) is None


def test_a_trial_exactly_at_the_median_goes_on():
    assert verdict(study([[3.0], [3.0], [3.0]]), 0) is None


def test_its_best_value_counts_and_not_its_last():
    assert verdict(study([[1, 3], [2, 4], [3, 5], [1, 99]]), 3) is None


def test_a_larger_metric_is_better_where_the_spec_says_so():
    curves = [[5.0], [6.0], [7.0], [1.0]]
    assert verdict(study(curves, "max"), 3) is not None
    assert verdict(study(curves, "min"), 3) is None


def test_only_trials_that_came_as_far_are_compared_with():
    history = study([[1.0], [1.0], [1.0, 9.0], [1.0, 9.0], [5.0, 5.5]])
    assert verdict(history, 4) is None


def test_pruned_and_completed_trials_count_and_failed_ones_do_not():
    history = study([[1.0], [1.0], [1.0], [9.0]])
    history.end(0, "returned")
    history.prune(1)
    history.end(2, "failed")
    assert "the median of 2 other trials" in verdict(history, 3).reason


def test_a_trial_does_not_count_against_itself():
    assert "than 1, the median of 2 other trials" in verdict(study([[1.0], [1.0], [9.0]]), 2).reason


def test_nothing_is_stopped_in_the_grace():
    history = study([[1, 1, 1]] * 4 + [[9, 9, 9]])
    assert verdict(history, 4, grace=4) is None
    assert verdict(history, 4, grace=3) is not None


def test_nothing_is_stopped_before_enough_others_came_as_far():
    history = study([[1.0]] * 3 + [[9.0]])
    assert verdict(history, 3, min_trials=4) is None
    assert verdict(history, 3, min_trials=3) is not None


def test_a_trial_at_its_last_step_is_complete_and_not_pruned():
    history = study([[1, 1, 1]] * 4 + [[9, 9, 9]])
    assert verdict(history, 4, max_budget=3) is None
    assert verdict(history, 4, max_budget=4) is not None


def plain(history, number, step):
    """The same median by its definition."""
    found = [
        statistics.fmean(list(history.curve(trial.number))[:step])
        for trial in history.trials
        if trial.number != number and trial.state != "failed" and len(history.curve(trial.number)) >= step
    ]
    return (statistics.median(found), len(found)) if found else (math.nan, 0)


MOVES = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["report", "report", "report", "lose", "fail", "finish", "prune"])),
    max_size=60,
)


@settings(deadline=None, max_examples=150)
@given(MOVES, st.randoms(use_true_random=False))
def test_the_memo_never_shows_whatever_happens_to_the_trials(moves, rng):
    """A trial that is lost starts again from an earlier step, or from the beginning: its curve is rewritten."""
    history = study([[1.0]])
    history.plan([{"x": 0.5}] * 5)
    for number, move in moves:
        trial = history.state.trials[number]
        if trial.state == "queued":
            history.start(number)
        if history.state.trials[number].state != "running":
            continue
        if move == "report":
            step = rng.randint(1, trial.budget + 1) if rng.random() < 0.2 else None
            history.report(number, rng.choice([rng.random(), 0.5]), step=step)
        elif move == "prune":
            history.prune(number)
        else:
            history.end(number, {"lose": "lost", "fail": "failed", "finish": "returned"}[move], retry=move == "lose")
        for step in (1, 2, 5):
            median, others = median_of_others(history.state, history.state.trials[number], step)
            expected, count = plain(history.state, number, step)
            assert others == count
            assert median == pytest.approx(expected, nan_ok=True)


def test_two_histories_in_turn_do_not_mix():
    first, second = study([[1.0], [2.0], [3.0]]), study([[10.0], [20.0], [30.0]])
    for history in (first, second):
        history.end(1, "returned")
        history.end(2, "returned")
    for _ in range(3):
        assert median_of_others(first.state, first.state.trials[0], 1) == (2.5, 2)
        assert median_of_others(second.state, second.state.trials[0], 1) == (25.0, 2)


def test_the_memo_keeps_no_more_than_two_histories():
    for _ in range(5):
        history = study([[1.0], [2.0]])
        median_of_others(history.state, history.state.trials[0], 1)
    assert averages._averages.cache_info().currsize == 2
