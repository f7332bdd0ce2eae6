"""The search space: what it refuses and in which words, and that every unit maps to a value inside."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tune_tasks.space import Categorical, Constant, Float, Grid, Int, Space, config

UNITS = st.floats(0, 1)
FLOAT = {"type": "float", "low": 0, "high": 1}


@st.composite
def floats(draw):
    log = draw(st.booleans())
    low = draw(st.floats(1e-12, 1e6) if log else st.floats(-1e9, 1e9))
    high = draw(st.floats(low, low + 1e9).filter(lambda high: high > low))
    step = None if log or draw(st.booleans()) else draw(st.floats((high - low) / 1000, high - low, exclude_min=True))
    return Float(low=low, high=high, log=log, step=step)


@st.composite
def ints(draw):
    log = draw(st.booleans())
    low = draw(st.integers(1 if log else -1000, 1000))
    high = draw(st.integers(low + 1, low + 10_000))
    return Int(low=low, high=high, log=log, step=1 if log else draw(st.integers(1, high - low)))


CHOICES = st.lists(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    min_size=1,
    max_size=6,
    unique_by=lambda choice: (type(choice), choice),
)


@given(st.one_of(floats(), ints(), CHOICES.map(lambda c: Categorical(choices=tuple(c)))), UNITS)
def test_every_unit_maps_to_a_value_inside(parameter, unit):
    assert parameter.contains(parameter.from_unit(unit))


@given(st.one_of(floats(), ints()))
def test_the_ends_of_the_unit_interval_reach_both_ends_of_the_range(parameter):
    last = parameter.low + (parameter.size() - 1) * parameter.step if parameter.step else parameter.high
    near = {"abs": 1e-9 * (parameter.high - parameter.low), "rel": 1e-14}
    assert parameter.from_unit(0.0) == pytest.approx(parameter.low, **near)
    assert parameter.from_unit(1.0) == pytest.approx(last, **near)


@given(st.one_of(floats(), ints()), UNITS, UNITS)
def test_the_map_never_goes_down(parameter, one, other):
    assert parameter.from_unit(min(one, other)) <= parameter.from_unit(max(one, other))


def test_equal_widths_have_equal_probability_on_the_declared_scale():
    units = [(index + 0.5) / 3000 for index in range(3000)]
    rate = Float(low=1e-4, high=1e-1, log=True)
    assert [sum(10.0**k <= rate.from_unit(u) < 10.0 ** (k + 1) for u in units) for k in (-4, -3, -2)] == [1000] * 3
    for parameter in (Int(low=1, high=3), Float(low=0, high=1, step=0.5), Categorical(choices=("a", "b", "c"))):
        values = [parameter.from_unit(unit) for unit in units]
        assert {values.count(value) for value in values} == {1000}


def test_on_a_log_scale_the_ends_of_a_whole_range_get_a_full_share():
    values = [Int(low=1, high=8, log=True).from_unit((index + 0.5) / 10_000) for index in range(10_000)]
    shares = [math.log((n + 0.5) / (n - 0.5)) / math.log(8.5 / 0.5) for n in (1, 8)]
    assert [values.count(1) / 10_000, values.count(8) / 10_000] == pytest.approx(shares, abs=1e-3)


@pytest.mark.parametrize(
    ("parameter", "inside", "outside"),
    [
        (Float(low=0, high=1), [0, 0.5, 1], [-0.1, 1.1, True, "0.5", None, math.nan]),
        (Float(low=0, high=1, step=0.25), [0.25, 1.0], [0.3]),
        (Int(low=1, high=9, step=4), [1, 5, 9], [2, 0, 13, 5.0, True]),
        (Categorical(choices=(1, "a", None)), [1, "a", None], [True, 1.0, "b"]),
        (Constant(value=[1]), [[1]], [[2], None]),
    ],
)
def test_what_a_parameter_contains(parameter, inside, outside):
    assert all(parameter.contains(value) for value in inside)
    assert not any(parameter.contains(value) for value in outside)


def test_a_step_that_does_not_divide_the_range_stays_below_its_end():
    assert [Float(low=0, high=1, step=0.4).from_unit(unit) for unit in (0, 0.5, 1)] == [0, 0.4, 0.8]
    assert [Int(low=1, high=10, step=4).from_unit(unit) for unit in (0, 0.5, 1)] == [1, 5, 9]


def test_sizes():
    sizes = [Float(low=0, high=1), Float(low=0, high=0.3, step=0.1), Int(low=1, high=10, step=4), Grid(choices=(1, 2))]
    assert [parameter.size() for parameter in sizes] == [0, 4, 3, 2]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"x": {"type": "float", "low": 1, "high": 1}}, "the range [1.0, 1.0] is empty; low must be below high"),
        ({"x": {"type": "int", "low": 3, "high": 1}}, "the range [3, 1] is inverted; low must be below high"),
        ({"x": {**FLOAT, "log": True}}, "a log range must lie above zero, and low is 0.0"),
        ({"x": {"type": "int", "low": -2, "high": 1, "log": True}}, "a log range must lie above zero, and low is -2"),
        ({"x": {"type": "int", "low": 1, "high": 9, "log": True, "step": 2}}, "log and step=2 exclude each other"),
        ({"x": {**FLOAT, "step": 2}}, "step 2.0 is wider than the range [0.0, 1.0]"),
        ({"x": {"type": "categorical", "choices": [1, 2, 1]}}, "choice 1 is there twice"),
        ({"x": {"type": "categorical", "choices": [1.0, math.inf]}}, "choice inf is not a finite number"),
        ({"a b": FLOAT}, "'a b' is not a parameter name"),
        ({"a\0": FLOAT}, "is not a parameter name"),
        ({"..": FLOAT}, "'..' is not a parameter name"),
        ({"x": 3}, "has no parameter to search"),
        ([1], "must be a mapping from names to parameters"),
        ({"x": {**FLOAT, "when": {"y": 1}}}, "x.when: 'y' is not allowed; there is no such parameter; there are x"),
        ({"x": FLOAT, "y": {**FLOAT, "when": {"x": 2}}}, "y.when.x: 2 is not a value that 'x' can take"),
        (
            {
                "x": {"type": "grid", "choices": [1], "when": {"y": 1}},
                "y": {"type": "grid", "choices": [1], "when": {"x": 1}},
            },
            "x, y: conditions form a circle",
        ),
    ],
)
def test_a_space_that_cannot_be_meant_is_refused_in_words(space, message):
    with pytest.raises(ValidationError) as error:
        Space(space)
    assert message in str(error.value)


def test_true_and_1_are_different_choices():
    assert Categorical(choices=(True, 1, 1.0)).size() == 3


def test_groups_get_dotted_names_and_plain_values_are_constants():
    space = Space({"optimizer": {"rate": FLOAT, "name": "adam", "deep": {"n": {"type": "int", "low": 1, "high": 2}}}})
    assert list(space) == ["optimizer.rate", "optimizer.name", "optimizer.deep.n"]
    params = space.choose(lambda _, parameter: parameter.from_unit(1.0))
    assert params == {"optimizer.rate": 1.0, "optimizer.name": "adam", "optimizer.deep.n": 2}
    assert config(params) == {"optimizer": {"rate": 1.0, "name": "adam", "deep": {"n": 2}}}


TREE = {
    "skip": {**FLOAT, "when": {"model": "network", "layers": [2, 3]}},
    "layers": {"type": "int", "low": 1, "high": 3, "when": {"model": "network"}},
    "model": {"type": "categorical", "choices": ["linear", "network"]},
}


def choice(**values):
    return Space(TREE).choose(lambda name, parameter: values.get(name, parameter.from_unit(0.5)))


def test_parents_are_chosen_before_their_children_in_whatever_order_they_are_written():
    assert list(Space(TREE)) == ["model", "layers", "skip"]


def test_a_parameter_exists_only_where_all_its_conditions_hold():
    assert choice(model="linear") == {"model": "linear"}
    assert choice(model="network", layers=1) == {"model": "network", "layers": 1}
    assert choice(model="network", layers=3) == {"model": "network", "layers": 3, "skip": 0.5}


def test_a_constant_can_be_a_condition_and_have_one():
    space = Space({"kind": "a", "x": {**FLOAT, "when": {"kind": "a"}}, "y": {**FLOAT, "when": {"kind": ["a"]}}})
    assert set(space.choose(lambda *_: 0.5)) == {"kind", "x", "y"}
    with pytest.raises(ValidationError, match="'b' is not a value that 'kind' can take"):
        Space({"kind": "a", "x": {**FLOAT, "when": {"kind": "b"}}})


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"model": "linear"}, []),
        ({}, ["model: missing"]),
        ({"model": "tree"}, ["model: 'tree' is outside the space"]),
        ({"model": "linear", "layers": 1}, ["layers: does not exist for this configuration"]),
        ({"model": "network", "layers": 9}, ["layers: 9 is outside the space"]),
        ({"model": "linear", "other": 1}, ["other: unknown parameter"]),
    ],
)
def test_what_is_wrong_with_a_configuration(params, problem):
    assert Space(TREE).problems(params) == problem


@given(st.lists(UNITS, min_size=3, max_size=3))
def test_what_is_chosen_has_no_problems(units):
    values = iter(units)
    space = Space(TREE)
    assert space.problems(space.choose(lambda _, parameter: parameter.from_unit(next(values)))) == []


def test_a_space_is_the_same_after_a_round_through_json():
    space = Space(
        {
            **TREE,
            "fixed": {"type": "constant", "value": {"a": [1, None]}},
            "flag": {"type": "grid", "choices": [True, 1, 1.0, "1", None]},
        }
    )
    again = Space.model_validate_json(space.model_dump_json())
    assert again == space
    assert list(again) == list(space)
    assert [type(value) for value in again["flag"].choices] == [bool, int, float, str, type(None)]


def test_a_name_that_is_declared_twice_is_refused():
    with pytest.raises(ValidationError):
        Space({"a": {"b": FLOAT}, "a.b": {**FLOAT, "high": 2}})


def test_a_name_that_is_a_parameter_and_a_group_is_refused():
    with pytest.raises(ValidationError):
        Space({"a": FLOAT, "a.b": FLOAT})


def test_a_condition_on_a_value_of_a_float_with_a_step_can_hold():
    space = Space({"p": {"type": "float", "low": 0.1, "high": 0.5, "step": 0.1}, "x": {**FLOAT, "when": {"p": 0.3}}})
    assert "x" in space.choose(lambda _, parameter: parameter.from_unit(0.5))


def test_a_condition_on_true_does_not_hold_for_1():
    space = Space({"p": {"type": "grid", "choices": [True, 1]}, "x": {**FLOAT, "when": {"p": [True]}}})
    assert "x" not in space.choose(lambda name, parameter: 1 if name == "p" else parameter.from_unit(0.5))


@pytest.mark.parametrize("value", [math.nan, math.inf, object()])
def test_a_constant_that_is_no_json_is_refused(value):
    with pytest.raises(ValidationError):
        Space({"x": FLOAT, "fixed": value})


def test_a_range_wider_than_a_float_can_tell_is_refused():
    with pytest.raises(ValidationError):
        Float(low=-1.7e308, high=1.7e308)
