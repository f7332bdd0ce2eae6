"""Grid search: which cells there are, in which order, and what a huge grid costs."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_tasks.samplers.cells import cells, nth, position
from tune_tasks.samplers.grid import GridSampler
from tune_tasks.space import Categorical, Float, Int, Space
from tune_tasks.testing.histories import History, study_spec
from tune_tasks.testing.samplers import CONDITIONAL, FINITE, MIXED, SamplerContract


class TestGridSampler(SamplerContract):
    @pytest.fixture
    def sampler(self):
        return GridSampler(seed=3)


def proposed(space, count, **options):
    return GridSampler(**options).propose(History(study_spec(space, budget={"trials": 10_000})).state, count)


def test_it_is_the_product_in_order_the_last_parameter_changing_fastest():
    space = {
        "a": {"type": "grid", "choices": ["x", "y"]},
        "b": {"type": "int", "low": 1, "high": 3},
        "c": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.5},
        "fixed": "always",
    }
    made = [proposal.params for proposal in proposed(space, 100)]
    expected = itertools.product(["x", "y"], [1, 2, 3], [0.0, 0.5, 1.0])
    assert made == [{"a": a, "b": b, "c": c, "fixed": "always"} for a, b, c in expected]


def test_a_parameter_that_does_not_exist_does_not_multiply_a_cell():
    made = [proposal.params for proposal in proposed(FINITE, 100)]
    assert made == [
        {"model": "small", "flag": True},
        {"model": "small", "flag": False},
        *({"model": "large", "flag": flag, "depth": depth} for depth in (1, 2, 3) for flag in (True, False)),
    ]


def test_a_parameter_under_two_conditions_exists_only_where_both_hold():
    space = {
        "a": {"type": "categorical", "choices": [1, 2]},
        "b": {"type": "categorical", "choices": [1, 2]},
        "c": {"type": "int", "low": 1, "high": 5, "when": {"a": 2, "b": 2}},
    }
    assert cells(Space(space)).total == 1 + 1 + 1 + 5


def test_a_condition_on_one_value_of_a_wide_range_stays_cheap():
    space = {
        "n": {"type": "int", "low": 1, "high": 10**12},
        "k": {"type": "int", "low": 1, "high": 7, "when": {"n": [5, 10**12]}},
    }
    grid = cells(Space(space))
    assert grid.total == 10**12 - 2 + 2 * 7
    assert [grid.at(index) for index in (0, 4, 10, 11)] == [{"n": 1}, {"n": 5, "k": 1}, {"n": 5, "k": 7}, {"n": 6}]
    assert grid.at(grid.total - 1) == {"n": 10**12, "k": 7}


def test_a_huge_grid_takes_no_memory():
    space = {f"p{i}": {"type": "int", "low": 1, "high": 10**6} for i in range(30)}
    tracemalloc.start()
    made = proposed(space, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert made[9].reason == f"cell 10 of {10**180}"
    assert peak < 2_000_000


def test_it_ends_after_the_last_cell_and_says_which_cell_each_is():
    history = History(study_spec(FINITE))
    sampler = GridSampler()
    first = sampler.propose(history.state, 5)
    history.plan([proposal.params for proposal in first])
    rest = sampler.propose(history.state, 5)
    assert [proposal.reason for proposal in (*first, *rest)] == [f"cell {n} of 8" for n in range(1, 9)]
    history.plan([proposal.params for proposal in rest])
    assert sampler.propose(history.state, 5) == []


def test_repeats_go_through_the_whole_grid_again():
    made = proposed(FINITE, 100, repeats=2)
    assert len(made) == 16
    assert [proposal.params for proposal in made[:8]] == [proposal.params for proposal in made[8:]]
    assert made[8].reason == "cell 1 of 8, pass 2 of 2"


def test_a_continuous_float_is_drawn_anew_for_each_cell():
    space = {"a": {"type": "grid", "choices": [1, 2]}, "rate": {"type": "float", "low": 0, "high": 1}}
    made = proposed(space, 100, repeats=2)
    assert [proposal.params["a"] for proposal in made] == [1, 2, 1, 2]
    assert len({proposal.params["rate"] for proposal in made}) == 4


@pytest.mark.parametrize("space", [MIXED, CONDITIONAL, FINITE])
def test_every_cell_is_different_and_inside_the_space(space):
    made = proposed(space, 3000)
    discrete = {name for name in study_spec(space).space if study_spec(space).space[name].size()}
    keys = [repr({k: v for k, v in proposal.params.items() if k in discrete}) for proposal in made]
    assert len(set(keys)) == len(keys)
    assert all(study_spec(space).space.problems(proposal.params) == [] for proposal in made)


@st.composite
def trees(draw):
    """Spaces of small discrete parameters, each of which may depend on some that come before."""
    space = {}
    for index in range(draw(st.integers(1, 6))):
        when = {}
        for parent in draw(st.lists(st.sampled_from(sorted(space) or ["none"]), max_size=2, unique=True)):
            if parent in space:
                when[parent] = draw(st.lists(st.integers(0, 2), min_size=1, max_size=2, unique=True))
        space[f"p{index}"] = {"type": "int", "low": 0, "high": 2, "when": when}
    return space


@settings(deadline=None)
@given(trees())
def test_the_cells_are_exactly_the_configurations_that_exist(raw):
    space = Space(raw)
    every = set()
    for values in itertools.product(range(3), repeat=len(raw)):
        chosen = dict(zip(raw, values, strict=True))
        every.add(repr(sorted(space.choose(lambda name, _, chosen=chosen: chosen[name]).items())))
    grid = cells(space)
    listed = [sorted(grid.at(index).items()) for index in range(grid.total)]
    assert {repr(cell) for cell in listed} == every
    assert grid.total == len(every)


@pytest.mark.parametrize(
    "parameter",
    [
        Int(low=-3, high=9, step=2),
        Int(low=1, high=40, log=True),
        Float(low=0.1, high=0.9, step=0.1),
        Float(low=0.0, high=1.0, step=0.001),
        Categorical(choices=(1, True, None, "1", 1.0)),
    ],
)
def test_position_is_nth_backwards(parameter):
    assert [position(parameter, nth(parameter, index)) for index in range(parameter.size())] == list(
        range(parameter.size())
    )
