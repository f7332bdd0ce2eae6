"""What a challenger must pass: the bounds are those of theory, and every gate says why in figures."""

from __future__ import annotations

import math
from random import Random

import pytest

from tune_tasks.delivery import Limit
from tune_tasks.errors import ConfigError
from tune_tasks.registry import gates
from tune_tasks.registry.evaluation import Measured, Repeat, Summary

RULES = gates.Rules(metric="loss", mode="min", key="main-0000/promote")


def model(values: list[float], name: str = "trial-3-9", slices: dict[str, list[str]] | None = None) -> Measured:
    return Measured(name, (Repeat({"loss": sum(values) / len(values)}, {"loss": values}, slices or {}),))


def rules(**changes: object) -> gates.Rules:
    return gates.Rules(**{"metric": "loss", "mode": "min", "key": "k", **changes})  # type: ignore[arg-type]


def noisy(mean: float, spread: float, count: int, seed: int = 1) -> list[float]:
    draw = Random(seed)
    return [draw.gauss(mean, spread) for _ in range(count)]


def with_gain(errors: float) -> tuple[list[float], list[float]]:
    """Values of 100 examples for two models, whose mean difference is as many standard errors as given."""
    theirs, noise = noisy(0.5, 1.0, 100), noisy(0.0, 0.1, 100, 2)
    mean = sum(noise) / 100
    error = math.sqrt(sum((value - mean) ** 2 for value in noise)) / 100
    return [value - (draw - mean + errors * error) for value, draw in zip(theirs, noise, strict=True)], theirs


def test_the_bounds_of_a_mean_are_those_of_the_normal_distribution_where_there_is_much_data() -> None:
    values = noisy(0.0, 1.0, 2000)
    mean, error = sum(values) / 2000, 1 / math.sqrt(2000)
    low, high = gates.interval(values, 0.05, "k")
    assert low == pytest.approx(mean - 1.645 * error, abs=0.1 * error)
    assert high == pytest.approx(mean + 1.645 * error, abs=0.1 * error)


def test_the_bound_holds_as_often_as_it_says() -> None:
    """Of 200 samples of 50, the bound at 90% is above the truth in about 10%; 2 standard deviations are allowed."""
    above = sum(gates.interval(noisy(0.0, 1.0, 50, seed), 0.1, str(seed))[0] > 0 for seed in range(200))
    assert abs(above - 20) <= 2 * math.sqrt(200 * 0.1 * 0.9)


def test_very_many_examples_give_the_bound_of_their_number() -> None:
    low, high = gates.interval(noisy(0.0, 1.0, 100_000), 0.05, "k")
    assert high - low == pytest.approx(2 * 1.645 / math.sqrt(100_000), rel=0.05)


def test_one_key_gives_one_bound_and_another_key_another() -> None:
    values = noisy(0.0, 1.0, 30)
    assert gates.interval(values, 0.05, "k") == gates.interval(values, 0.05, "k")
    assert gates.interval(values, 0.05, "k") != gates.interval(values, 0.05, "l")


def test_a_challenger_that_is_surely_better_passes_and_the_reason_has_the_figures() -> None:
    theirs = noisy(0.5, 0.1, 100)
    gate = gates.improvement(model([value - 0.1 for value in theirs]), model(theirs, "version-3"), RULES)
    assert gate.passed
    assert gate.low == pytest.approx(0.1)
    assert gate.high == pytest.approx(0.1)
    assert "better by 0.1 than the champion's" in gate.reason
    assert (
        "(version 3); with 95% confidence, over 100 examples, it is at least 0.1 better; more than 0 is" in gate.reason
    )


def test_a_challenger_that_is_better_by_chance_only_does_not_pass() -> None:
    ours, theirs = with_gain(1.0)
    gate = gates.improvement(model(ours), model(theirs, "version-3"), RULES)
    assert gate.value is not None
    assert gate.low is not None
    assert gate.low < 0 < gate.value
    assert not gate.passed
    assert f"it is {-gate.low:.6g} worse at most" in gate.reason


def test_pairs_are_compared_and_not_two_heaps() -> None:
    """A gain that is small against the spread of the examples, but is there in each of them, is sure."""
    theirs, more = noisy(0.5, 10.0, 50), noisy(0.1, 0.05, 50, 2)
    ours = [value - gain for value, gain in zip(theirs, more, strict=True)]
    assert gates.improvement(model(ours), model(theirs, "version-3"), RULES).passed
    assert not gates.improvement(model(ours[::-1]), model(theirs, "version-3"), RULES).passed


def test_the_best_of_many_has_to_be_surer() -> None:
    ours, theirs = with_gain(2.2)  # the bound of one lies 1.6 standard errors below, that of 20 at once 2.8
    alone = gates.improvement(model(ours), model(theirs, "version-3"), rules())
    chosen = gates.improvement(model(ours), model(theirs, "version-3"), rules(candidates=20))
    assert alone.low is not None
    assert chosen.low is not None
    assert chosen.low < alone.low
    assert (alone.passed, chosen.passed) == (True, False)
    assert "as the best of 20" in chosen.reason


def test_larger_is_better_where_the_mode_says_so() -> None:
    assert gates.improvement(model([2.0, 3.0]), model([1.0, 2.0], "version-3"), rules(mode="max")).passed
    assert not gates.improvement(model([2.0, 3.0]), model([1.0, 2.0], "version-3"), rules()).passed


def test_exactly_what_is_asked_is_enough_but_nothing_is_no_improvement() -> None:
    ours, theirs = model([0.2, 0.2]), model([0.3, 0.3], "version-3")
    assert 0.3 - 0.2 < 0.1
    assert gates.improvement(ours, theirs, rules(min_improvement=0.1)).passed
    assert not gates.improvement(ours, theirs, rules(min_improvement=0.11)).passed
    assert not gates.improvement(ours, ours, rules()).passed


def test_without_examples_repeats_are_resampled_and_one_number_each_is_compared_as_it_is() -> None:
    def repeated(*values: float) -> Measured:
        return Measured("version-3", tuple(Repeat({"loss": value}) for value in values))

    gate = gates.improvement(repeated(0.4, 0.5, 0.3), repeated(0.45, 0.46, 0.47), rules())
    assert not gate.passed
    assert "over 3 repeats" in gate.reason
    assert "confidence" not in gates.improvement(repeated(0.4), repeated(0.5), rules()).reason


def test_the_first_model_has_nothing_to_beat() -> None:
    gate = gates.improvement(model([0.5]), None, RULES)
    assert (gate.passed, gate.reason) == (True, "loss 0.5 is the first: there is no champion yet")
    assert gates.slices(model([0.5]), None, RULES, 0.0).passed


SLICES = {"digit": ["3", "3", "8", "8", "8"], "odd": ["y", "y", "n", "n", "n"]}


def test_a_slice_that_is_worse_is_named_with_its_size() -> None:
    ours, theirs = model([0.0, 0.0, 0.6, 0.6, 0.6], slices=SLICES), model([0.5] * 5, "version-3", SLICES)
    gate = gates.slices(ours, theirs, RULES, 0.05)
    assert not gate.passed
    assert (gate.value, gate.limit) == (pytest.approx(-0.1), -0.05)
    assert "2 of 4 slices are too much worse: digit=8 (3 examples) is worse by 0.1 than the champion" in gate.reason
    assert "0.05 worse is allowed" in gate.reason
    assert gates.slices(ours, theirs, RULES, 0.1).passed
    assert "digit=8 (3 examples)" in gates.slices(ours, theirs, RULES, 0.1).reason


def test_slices_that_were_never_given_are_a_mistake() -> None:
    with pytest.raises(ConfigError, match="returned no slices"):
        gates.slices(model([0.5]), model([0.5], "version-3"), RULES, 0.1)


def test_limits_hold_on_both_sides_whoever_the_champion_is() -> None:
    ours = Measured("m", (Repeat({"latency": 0.02, "size": 100.0}),))
    passed, over, under = gates.limits(
        ours, {"size": Limit(min=1, max=100), "latency": Limit(max=0.01)}
    ) + gates.limits(ours, {"size": Limit(min=101)})
    assert (passed.passed, passed.reason) == (True, "size is 100; at least 1 and at most 100 is asked")
    assert (over.name, over.passed, over.limit) == ("limits.latency", False, 0.01)
    assert over.reason == "latency is 0.02; at most 0.01 is asked"
    assert (under.passed, under.limit) == (False, 101)
    with pytest.raises(ConfigError, match=r"'latncy' is not allowed.*Did you mean 'latency'"):
        gates.limits(ours, {"latncy": Limit(max=1)})


SUMMARY = Summary(model="trial-3-9", metrics={"loss": 0.5})


def test_a_gate_of_the_users_own_says_yes_no_or_why() -> None:
    assert gates.own("a:b", lambda ours, theirs: ours.metrics["loss"] < 1 and theirs is None, SUMMARY, None).passed
    gate = gates.own("a:b", lambda _, theirs: (False, f"too\nlike {theirs.model}"), SUMMARY, SUMMARY)
    assert (gate.passed, gate.reason) == (False, "a:b: too like trial-3-9")


@pytest.mark.parametrize(("returned", "said"), [("yes", "returned 'yes', must be True or False"), (None, "None")])
def test_a_gate_that_says_nothing_of_use_is_a_mistake(returned: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        gates.own("a:b", lambda *_: returned, SUMMARY, None)
    with pytest.raises(ConfigError, match="'a:b' raised ZeroDivisionError"):
        gates.own("a:b", lambda *_: 1 / 0, SUMMARY, None)


def test_models_that_were_measured_on_other_data_are_never_compared() -> None:
    with pytest.raises(ConfigError, match=r"not the same data: trial-3-9 and version-3 .seed 0. have 2 and 3 examples"):
        gates.check_comparable([model([0.5] * 2), model([0.5] * 3, "version-3")], "loss")
    with pytest.raises(ConfigError, match="have other slices"):
        gates.check_comparable([model([0.5] * 5, slices=SLICES), model([0.5] * 5, "version-3")], "loss")
    both = Measured("m", (*model([0.5] * 2).repeats, *model([0.5] * 3).repeats))
    with pytest.raises(ConfigError, match="the seeds 0 and 1 of m"):
        gates.check_comparable([both], "loss")


def test_the_verdict_names_every_gate_that_says_no() -> None:
    found = [
        gates.improvement(model([0.5]), None, RULES),
        *gates.limits(Measured("m", (Repeat({"a": 2.0, "b": 2.0}),)), {"a": Limit(max=1), "b": Limit(max=1)}),
    ]
    assert gates.verdict(found) == "limits.a: a is 2; at most 1 is asked; limits.b: b is 2; at most 1 is asked"
    assert gates.verdict(found[:1]) == "loss 0.5 is the first: there is no champion yet"


def test_bounds_are_given_where_there_is_something_to_resample() -> None:
    assert gates.bounds(Measured("m", (Repeat({"loss": 0.5}),)), confidence=0.95, key="k") == {}
    low, high = gates.bounds(model(noisy(0.0, 1.0, 400)), confidence=0.95, key="k")["loss"]
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
