"""The contract of samplers catches what it is for: every check has a broken twin that must make it fail."""

from __future__ import annotations

import math

import pytest
from pydantic import BaseModel, ConfigDict

from tune_tasks.samplers.random import RandomSampler
from tune_tasks.testing.samplers import CONDITIONAL, MIXED, SamplerContract

SEEN = []


class Open(RandomSampler):
    model_config = ConfigDict(frozen=False, extra="allow")


class Undescribed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0


def twin(change):
    """A sampler that proposes well, and then does something to it."""

    class Twin(RandomSampler):
        def propose(self, history, count):
            return change(super().propose(history, count), history)

    return Twin


def each(**changes):
    return twin(lambda made, _: [proposal.model_copy(update=changes) for proposal in made])


def valued(change):
    """A sampler that does something to every value."""
    return twin(
        lambda made, _: [
            proposal.model_copy(update={"params": {name: change(value) for name, value in proposal.params.items()}})
            for proposal in made
        ]
    )


def numpy_value(value):
    import numpy as np

    return np.float64(value) if isinstance(value, float) else value


def heedless(made, history):
    """Proposes once more what was given to be tried first."""
    given = [start.params for start in history.spec.start]
    return [proposal.model_copy(update={"params": given[0]}) for proposal in made]


def no_branch(made, history):
    """Leaves out a parameter that exists only sometimes."""
    plain = [{name: value for name, value in proposal.params.items() if name != "l2"} for proposal in made]
    return [proposal.model_copy(update={"params": params}) for proposal, params in zip(made, plain, strict=True)]


def spoil(made, history):
    if history.trials:
        history.trials[0].params["rate"] = 0.5
    return made


def learn(made, history):
    return [p for p in made if all(trial.value + 1 for trial in history.trials)]


def limited(made, history):
    if len(history.trials) > 1000:
        raise RecursionError
    return made


def positive(made, history):
    return made if all(math.log(trial.value) < 9 for trial in history.trials if trial.value is not None) else []


def remembering(made, history):
    SEEN.append(history)
    return made[len(SEEN) - 1 :]


class Hashing(RandomSampler):
    """Depends on the order in which this process hashes strings."""

    def propose(self, history, count):
        return [p.model_copy(update={"reason": str(hash("a"))}) for p in super().propose(history, count)]


class Forgetful(RandomSampler):
    """Proposes what was tried before."""

    def propose(self, history, count):
        made = super().propose(history, count)
        return [proposal.model_copy(update={"params": made[0].params}) for proposal in made] if made else made


class Endless(RandomSampler):
    """Does not look at what was tried."""

    def propose(self, history, count):
        space, start = history.spec.space, len(history.trials)
        fixed = {"model": "small", "flag": True}
        assert space.problems(fixed) == []
        good = super().propose(history, 1)[0] if start < 8 else None
        return [good] if good else [_numbered(fixed, start)]


def _numbered(params, number):
    from tune_tasks.events import Proposal

    return Proposal(number=number, params=params, reason="again")


BROKEN = [
    (Open, "test_its_options_are_frozen_and_an_unknown_one_is_refused", {}),
    (Undescribed, "test_its_options_are_frozen_and_an_unknown_one_is_refused", {}),
    (valued(lambda value: "other"), "test_it_proposes_inside_the_space", {"space": MIXED, "count": 0}),
    (twin(no_branch), "test_every_branch_of_a_condition_is_proposed", {"space": CONDITIONAL}),
    (twin(lambda made, _: made[1:]), "test_it_proposes_as_many_as_asked_numbered_on", {"space": MIXED, "count": 40}),
    (each(number=0), "test_it_proposes_as_many_as_asked_numbered_on", {"space": MIXED, "count": 40}),
    (each(reason=" "), "test_every_proposal_says_why", {}),
    (Forgetful, "test_no_two_proposals_of_a_batch_are_the_same", {"space": MIXED, "count": 0}),
    (Endless, "test_a_finite_space_is_used_up_without_a_repeat", {}),
    (
        Hashing,
        "test_the_same_history_gives_the_same_proposals_in_a_fresh_process",
        {"space": MIXED},
    ),
    (twin(heedless), "test_what_was_given_to_be_tried_first_is_not_proposed_again", {}),
    (twin(remembering), "test_another_history_in_between_changes_nothing", {}),
    (valued(numpy_value), "test_values_are_plain_json", {"space": MIXED}),
    (twin(learn), "test_it_goes_on_whatever_became_of_the_trials", {"space": MIXED, "outcome": "failed"}),
    (twin(positive), "test_it_maximises_too", {}),
    (twin(spoil), "test_a_proposal_does_not_change_the_history", {}),
    (twin(limited), "test_it_survives_thousands_of_trials", {}),
]


@pytest.mark.parametrize(("broken", "check", "arguments"), BROKEN)
def test_a_broken_twin_fails_the_check_that_is_for_it(broken, check, arguments):
    SEEN.clear()
    contract, sampler = SamplerContract(), broken(seed=1)
    with pytest.raises((AssertionError, TypeError, ValueError, RecursionError)):
        getattr(contract, check)(sampler, **arguments)


def test_every_check_of_the_contract_has_a_twin():
    checks = {name for name in vars(SamplerContract) if name.startswith("test_")}
    assert checks == {check for _, check, _ in BROKEN}


@pytest.mark.parametrize(("_broken", "check", "arguments"), BROKEN)
def test_a_good_sampler_passes_the_same_check(_broken, check, arguments):
    getattr(SamplerContract(), check)(RandomSampler(seed=1), **arguments)


def test_a_suite_without_a_sampler_says_what_to_give():
    with pytest.raises(NotImplementedError, match="give your sampler in the fixture `sampler`"):
        SamplerContract.sampler.__wrapped__(SamplerContract())
