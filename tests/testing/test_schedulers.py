"""The contract of schedulers catches what it is for: every check has a broken twin that must make it fail."""

from __future__ import annotations

import pytest
from pydantic import ConfigDict

from tune_tasks.events import Advance, Prune
from tune_tasks.schedulers.asha import ASHA
from tune_tasks.schedulers.successive_halving import SuccessiveHalving
from tune_tasks.testing.schedulers import SchedulerContract

CALLS = []


class Open(ASHA):
    model_config = ConfigDict(frozen=False, extra="allow")


def twin(change, base=ASHA):
    """A scheduler that decides well, and then does something to it."""

    class Twin(base):
        def review(self, history, *, closing):
            return change(super().review(history, closing=closing), history)

    return Twin


def advancing(**changes):
    return twin(lambda made, _: [d.model_copy(update=changes) if isinstance(d, Advance) else d for d in made])


def pruning_all(made, history):
    return [Prune(trial=decision.trial, reason="no") for decision in made]


def upside_down(made, history):
    """Advances as many as it should, but the worst."""
    many = sum(isinstance(decision, Advance) for decision in made)
    waiting = [t for t in history.trials if t.state == "paused" and t.advance is None and t.budget == 1]
    worst = sorted(waiting, key=lambda t: -history.sign * t.value)[:many]
    return [Advance(trial=t.number, budget=3, last=False, reason="worst") for t in worst] if waiting else made


def first_come(made, history):
    """Ranks by the time of arrival."""
    waiting = [trial for trial in history.trials if trial.state == "paused"]
    first = sorted(waiting, key=lambda trial: trial.reports[0].time)[:3]
    return [Advance(trial=trial.number, budget=3, last=False, reason="first") for trial in first]


def spoil(made, history):
    history.queue[10_000] = None
    return made


def moody(made, history):
    CALLS.append(1)
    return made[len(CALLS) % 2 :]


def forgetful(made, history):
    return [decision for decision in made if decision.trial != 7]


def content(made, history):
    """Takes a trial that was complete once for complete for ever."""
    return [decision for decision in made if history.trials[decision.trial].budget < 27]


def greedy(made, history):
    return [*made, Prune(trial=len(history.trials), reason="one too many")]


class Hashing(ASHA):
    """Depends on the order in which this process hashes strings."""

    def review(self, history, *, closing):
        return [d.model_copy(update={"reason": str(hash("a"))}) for d in super().review(history, closing=closing)]


class Waiting(SuccessiveHalving):
    """Waits for trials that failed."""

    def review(self, history, *, closing):
        return [] if history.count("failed") else super().review(history, closing=closing)


class Hasty(SchedulerContract):
    """Claims for ASHA that it does not depend on the speed of workers."""

    order_free = True


BROKEN = [
    (Open, "test_its_options_are_frozen_and_an_unknown_one_is_refused", {}),
    (twin(lambda *_: []), "test_every_study_ends_with_every_trial_decided", {"trials": 5, "workers": 4}),
    (twin(pruning_all), "test_without_failures_a_study_ends_with_a_complete_trial", {"trials": 5}),
    (Waiting, "test_a_study_whose_trials_fail_ends_too", {"share": 0.3}),
    (advancing(reason=""), "test_every_decision_has_a_reason", {}),
    (twin(lambda made, _: [*made, *made]), "test_only_a_trial_that_waits_for_a_decision_gets_one", {"trials": 5}),
    (twin(upside_down), "test_a_worse_trial_never_advances_over_a_better_one", {"trials": 40}),
    (advancing(last=False), "test_budgets_grow_to_the_largest_and_no_further", {"trials": 40}),
    (advancing(budget=28), "test_budgets_grow_to_the_largest_and_no_further", {"trials": 5}),
    (advancing(budget=1), "test_budgets_grow_to_the_largest_and_no_further", {"trials": 5}),
    (twin(first_come), "test_the_order_in_which_results_arrived_makes_no_difference", {"closing": False}),
    (ASHA, "test_the_speed_of_the_workers_makes_no_difference", {}),
    (Hashing, "test_the_same_history_gives_the_same_decisions_in_a_fresh_process", {"closing": True}),
    (twin(spoil), "test_a_decision_does_not_change_the_history", {}),
    (twin(moody), "test_looking_is_not_deciding", {}),
    (twin(forgetful), "test_at_the_end_nobody_is_left_behind", {}),
    (
        twin(content),
        "test_extended_to_a_larger_budget_complete_trials_go_on_and_no_other",
        {"trials": 5, "longer": 81},
    ),
    (twin(greedy), "test_thousands_of_trials_are_reviewed", {}),
]


@pytest.mark.parametrize(("broken", "check", "arguments"), BROKEN)
def test_a_broken_twin_fails_the_check_that_is_for_it(broken, check, arguments):
    CALLS.clear()
    contract = Hasty() if broken is ASHA else SchedulerContract()
    with pytest.raises((AssertionError, ValueError)):
        getattr(contract, check)(broken(max_budget=27), **arguments)


def test_every_check_of_the_contract_has_a_twin():
    checks = {name for name in vars(SchedulerContract) if name.startswith("test_")}
    assert checks == {check for _, check, _ in BROKEN}


@pytest.mark.parametrize(("_broken", "check", "arguments"), BROKEN)
def test_a_good_scheduler_passes_the_same_check(_broken, check, arguments):
    getattr(Hasty(), check)(SuccessiveHalving(max_budget=27), **arguments)


def test_a_suite_without_a_scheduler_says_what_to_give():
    with pytest.raises(NotImplementedError, match="give your scheduler in the fixture `scheduler`"):
        SchedulerContract.scheduler.__wrapped__(SchedulerContract())
