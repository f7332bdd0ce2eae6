"""No scheduler: nothing is decided before a trial ends."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tune_tasks.schedulers.none import NoScheduler
from tune_tasks.testing.schedulers import SchedulerContract


class TestNoScheduler(SchedulerContract):
    order_free = True

    @pytest.fixture
    def scheduler(self):
        return NoScheduler(max_budget=27)


class TestNoSchedulerThatLetsTheObjectiveDecide(SchedulerContract):
    order_free = True

    @pytest.fixture
    def scheduler(self):
        return NoScheduler()


def test_a_trial_runs_its_whole_budget_at_once():
    assert NoScheduler(max_budget=9).first_budget(3) == 9
    assert NoScheduler().first_budget(3) is None


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValidationError, match="max_budget is 0, must be at least 1"):
        NoScheduler(max_budget=0)
