"""Options of the schedulers: what is refused, and in which words."""

from __future__ import annotations

import pytest

from tune_tasks.errors import ConfigError
from tune_tasks.plugins import available, scheduler
from tune_tasks.schedulers import GROUP, Scheduler
from tune_tasks.testing.histories import study_spec
from tune_tasks.testing.schedulers import SPACE

HALVING = ["asha", "successive_halving", "hyperband"]


def made(name, **options):
    return scheduler(study_spec(SPACE, scheduler={"name": name, **options}))


@pytest.mark.parametrize("name", [*HALVING, "none", "median"])
def test_each_is_found_by_its_name_and_keeps_the_protocol(name):
    assert isinstance(made(name, max_budget=9), Scheduler)
    assert name in available(GROUP)


@pytest.mark.parametrize("name", HALVING)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_budget": 9, "reduction_factor": 1}, "reduction_factor is 1, must be at least 2"),
        ({"max_budget": 9, "min_budget": 0}, "min_budget is 0, must be at least 1"),
        ({"max_budget": 0}, "max_budget is 0, must be at least 1"),
        ({"max_budget": 3, "min_budget": 9}, "min_budget is 9, must be at most max_budget, which is 3"),
        ({}, "scheduler.max_budget: missing; it must be given"),
        ({"max_budget": 9, "reduction_facto": 4}, "Did you mean 'reduction_factor'?"),
        ({"max_budget": 2.5}, "scheduler.max_budget: 2.5 is not allowed"),
        ({"max_budget": "many"}, "scheduler.max_budget: 'many' is not allowed"),
    ],
)
def test_a_wrong_option_is_named_with_its_value_and_what_is_allowed(name, options, message):
    with pytest.raises(ConfigError) as error:
        made(name, **options)
    assert message in str(error.value)
    assert str(error.value).startswith("scheduler.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grace": 0}, "grace is 0, must be at least 1"),
        ({"min_trials": 0}, "min_trials is 0, must be at least 1"),
        ({"gracee": 1}, "Did you mean 'grace'?"),
    ],
)
def test_median_stopping_names_its_wrong_options_too(options, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        made("median", **options)
