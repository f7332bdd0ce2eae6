"""Reports in columns: gaps, rewritten ends, metrics that come late or not at all, and frozen blocks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_tasks.curves import Curves, Report


def curves(*rows):
    made = Curves()
    for trial, step, metrics in rows:
        made.append(trial, step, 10.0 * step, metrics.items())
    return made


def test_the_rows_of_a_trial_are_its_steps():
    made = curves((3, 1, {"loss": 0.5}), (0, 1, {"loss": 9.0}), (3, 2, {"loss": 0.25}))
    assert list(made.column(3, "loss")) == [0.5, 0.25]
    assert (made.length(3), made.length(0), made.length(1)) == (2, 1, 0)
    assert made.reports(3) == [Report(1, 10.0, {"loss": 0.5}), Report(2, 20.0, {"loss": 0.25})]


@pytest.mark.parametrize("step", [0, 3, -1])
def test_a_step_that_leaves_a_gap_is_refused_by_name(step):
    made = curves((7, 1, {"loss": 1.0}))
    with pytest.raises(ValueError, match=f"trial 7 reports step {step} after step 1"):
        made.append(7, step, 0.0, [("loss", 1.0)])


def test_an_earlier_step_replaces_what_was_there_and_drops_what_came_after():
    made = curves(*((0, step, {"loss": float(step), "acc": -float(step)}) for step in range(1, 6)))
    assert made.append(0, 3, 99.0, [("loss", 0.5)]) is True
    assert list(made.column(0, "loss")) == [1.0, 2.0, 0.5]
    assert list(made.column(0, "acc")) == [-1.0, -2.0]
    assert made.append(0, 4, 99.0, [("loss", 0.4)]) is False


def test_a_metric_that_comes_late_or_is_left_out_has_no_value_there():
    made = curves((0, 1, {"a": 1.0}), (0, 2, {"b": 2.0}), (0, 3, {"a": 3.0}))
    a, b = list(made.column(0, "a")), list(made.column(0, "b"))
    assert (a[0], math.isnan(a[1]), a[2]) == (1.0, True, 3.0)
    assert (math.isnan(b[0]), b[1], len(b)) == (True, 2.0, 2)
    assert [report.metrics for report in made.reports(0)] == [{"a": 1.0}, {"b": 2.0}, {"a": 3.0}]


def test_none_stands_for_a_metric_that_a_report_does_not_have():
    made = Curves()
    made.append(0, 1, 0.0, [("a", None), ("b", 1.0)])
    assert list(made.column(0, "a")) == []
    assert made.reports(0)[0].metrics == {"b": 1.0}


def test_an_unknown_trial_or_metric_has_no_values():
    made = curves((0, 1, {"loss": 1.0}))
    assert list(made.column(0, "other")) == []
    assert list(made.column(5, "loss")) == []
    assert made.reports(5) == []


def same(one, other, trials):
    """Compares the reports of two stores; reports leave NaN out, so that == can compare them."""
    return all(one.reports(trial) == other.reports(trial) for trial in range(trials))


ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.dictionaries(st.sampled_from(["a", "b"]), st.floats(-9, 9), max_size=2)),
    max_size=30,
)


def fill(made, rows, rng=None):
    for trial, metrics in rows:
        last = made.length(trial)
        step = rng.randint(1, last + 1) if rng and rng.random() < 0.2 else last + 1
        made.append(trial, step, float(step), metrics.items())


@settings(deadline=None)
@given(ROWS, ROWS, st.randoms(use_true_random=False))
def test_a_frozen_block_and_what_comes_after_it_tell_the_same_as_one_store(before, after, rng):
    whole, first = Curves(), Curves()
    state = rng.getstate()
    fill(whole, before, rng)
    rng.setstate(state)
    fill(first, before, rng)
    resumed = Curves(first.freeze(4))
    assert same(whole, resumed, 4)
    assert [resumed.length(trial) for trial in range(4)] == [whole.length(trial) for trial in range(4)]
    state = rng.getstate()
    fill(whole, after, rng)
    rng.setstate(state)
    fill(resumed, after, rng)
    assert same(whole, resumed, 4)
    assert same(whole, Curves(resumed.freeze(4)), 4)


def test_a_block_can_hold_fewer_trials_than_there_are():
    made = curves((0, 1, {"a": 1.0}), (2, 1, {"a": 2.0}))
    resumed = Curves(made.freeze(1))
    assert (resumed.length(0), resumed.length(2)) == (1, 0)
    resumed.append(2, 1, 0.0, [("a", 2.0)])
    assert list(resumed.column(2, "a")) == [2.0]


def test_looking_at_a_block_does_not_cut_it_up():
    resumed = Curves(curves((0, 1, {"a": 1.0}), (1, 1, {"a": 2.0})).freeze(2))
    assert [list(resumed.column(trial, "a")) for trial in (0, 1)] == [[1.0], [2.0]]
    assert resumed._live == {}


def test_looking_at_a_trial_without_reports_leaves_nothing_behind():
    made = Curves()
    made.column(5, "loss")
    assert made._live == {}


def test_no_later_report_reaches_a_copy_whichever_way_it_comes():
    made = Curves(curves((0, 1, {"a": 1.0}), (1, 1, {"a": 2.0}), (2, 1, {"a": 3.0})).freeze(3))
    made.append(1, 2, 0.0, [("a", 2.5)])
    made.append(2, 2, 0.0, [("a", 3.5)])
    copied = made.copy()
    made.append(0, 2, 0.0, [("a", 9.0)])
    made.append(1, 3, 0.0, [("a", 9.0), ("b", 9.0)])
    made.append(2, 1, 0.0, [("a", 9.0)])
    assert [list(copied.column(trial, "a")) for trial in range(3)] == [[1.0], [2.0, 2.5], [3.0, 3.5]]
    assert [list(made.column(trial, "a")) for trial in range(3)] == [[1.0, 9.0], [2.0, 2.5, 9.0], [9.0]]
    copied.append(1, 3, 0.0, [("a", 7.0)])
    assert list(made.column(1, "a")) == [2.0, 2.5, 9.0]


ROWS = st.lists(
    st.tuples(st.integers(-2, 1), st.sampled_from([None, 0.5, 1.5]), st.sampled_from([None, 2.5, 3.5])), max_size=6
)


@given(st.lists(ROWS, max_size=6), st.booleans())
def test_several_reports_at_once_are_the_same_as_one_after_the_other(groups, looked_at):
    single, several = Curves(), Curves()
    for group in groups:
        steps, known = [], single.length(0)
        for back, _, _ in group:
            steps.append(max(1, min(known, steps[-1] if steps else known) + back) if back < 1 else known + 1)
            known = steps[-1]
        columns = [("a", [a for _, a, _ in group]), ("b", [b for _, _, b in group])]
        if steps:
            dropped = [
                single.append(0, step, float(step), [(name, values[row]) for name, values in columns])
                for row, step in enumerate(steps)
            ]
            assert several.extend(0, steps, [float(step) for step in steps], columns) == any(dropped)
        copied = several.copy() if looked_at else None
        assert several.reports(0) == single.reports(0)
        assert copied is None or copied.reports(0) == single.reports(0)
    assert several.length(0) == single.length(0)
