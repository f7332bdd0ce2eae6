"""Hyperband against the tables of the paper: sizes, budgets, and which trial belongs to which bracket."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tune_tasks.events import Advance
from tune_tasks.schedulers.hyperband import Hyperband
from tune_tasks.testing.histories import History, study_spec
from tune_tasks.testing.schedulers import SPACE, SchedulerContract, curve


class TestHyperband(SchedulerContract):
    order_free = True

    @pytest.fixture
    def scheduler(self):
        return Hyperband(max_budget=27)

    def group(self, scheduler, number):
        return bracket_of(scheduler, number)


class TestHyperbandWithUnevenBudgets(SchedulerContract):
    order_free = True

    @pytest.fixture
    def scheduler(self):
        return Hyperband(min_budget=2, max_budget=25, reduction_factor=2)

    def group(self, scheduler, number):
        return bracket_of(scheduler, number)


def bracket_of(scheduler, number):
    return next(start for start, bracket in scheduler.placed(number + 1) if number < start + bracket.size)


def table(scheduler):
    """The columns (n_i, r_i) of the paper's Table 1."""
    eta = scheduler.reduction_factor
    return [
        [(bracket.size // eta**i, budget) for i, budget in enumerate(bracket.rungs)] for bracket in scheduler.brackets()
    ]


def test_the_table_of_the_paper_for_81_and_3():
    assert table(Hyperband(max_budget=81)) == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]


def test_the_table_for_8_and_2():
    assert table(Hyperband(max_budget=8, reduction_factor=2)) == [
        [(8, 1), (4, 2), (2, 4), (1, 8)],
        [(6, 2), (3, 4), (1, 8)],
        [(4, 4), (2, 8)],
        [(4, 8)],
    ]


@pytest.mark.parametrize(("eta", "power"), [(3, 5), (10, 3), (2, 52), (3, 33), (7, 18)])
def test_exact_powers_have_all_their_brackets(eta, power):
    """A logarithm gives log(243, 3) = 4.999..., and a bracket is missing."""
    assert len(Hyperband(max_budget=eta**power, reduction_factor=eta).brackets()) == power + 1
    assert len(Hyperband(max_budget=eta**power - 1, reduction_factor=eta).brackets()) == power


@pytest.mark.parametrize("most", [1, 2, 10, 26, 27, 28, 100])
def test_budgets_grow_strictly_from_the_least_to_the_largest(most):
    for bracket in Hyperband(max_budget=most).brackets():
        assert all(low < high for low, high in pairwise(bracket.rungs))
        assert bracket.rungs[0] >= 1
        assert bracket.rungs[-1] == most


def test_trials_fill_the_brackets_round_and_round():
    scheduler = Hyperband(max_budget=81)
    first = [scheduler.first_budget(number) for number in range(2 * 143)]
    assert first[:143] == [1] * 81 + [3] * 34 + [9] * 15 + [27] * 8 + [81] * 5
    assert first[143:] == first[:143]
    assert scheduler.first_budget(143 * 10**9 + 80) == 1


def run_up(history, number):
    trial = history.state.trials[number]
    history.run(number, [curve(trial.params, step) for step in range(trial.budget + 1, trial.target + 1)])


def test_a_bracket_is_decided_while_the_next_is_sampled():
    scheduler = Hyperband(max_budget=9)  # brackets of 9, 5 and 3
    history = History(study_spec(SPACE, budget={"trials": 17}))
    for number in range(11):
        history.plan([{"x": number / 20}], scheduler.first_budget(number))
    for number in range(11):
        if number != 4:
            run_up(history, number)
    assert scheduler.review(history.state, closing=False) == []
    run_up(history, 4)
    decisions = scheduler.review(history.state, closing=False)
    assert {decision.trial for decision in decisions} == set(range(9))
    assert sum(isinstance(decision, Advance) for decision in decisions) == 3
    assert {decision.budget for decision in decisions if isinstance(decision, Advance)} == {3}


def test_the_last_bracket_is_halved_as_the_budget_cut_it():
    scheduler = Hyperband(max_budget=9)
    history = History(study_spec(SPACE, budget={"trials": 11}))
    for number in range(11):
        history.plan([{"x": number / 20}], scheduler.first_budget(number))
        run_up(history, number)
    decisions = scheduler.review(history.state, closing=False)
    last = {decision.trial: decision.reason for decision in decisions if decision.trial >= 9}
    assert set(last) == {9, 10}
    assert set(last.values()) == {
        "rank 1 of 2 at 3 steps, the top 1 advances",
        "rank 2 of 2 at 3 steps, the top 1 advances",
    }
