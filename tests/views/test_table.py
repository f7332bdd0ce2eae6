"""The leaderboard has every trial, the best first, and can be read anywhere."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from tests.histories import Story
from tests.views.conftest import spec
from tune_tasks.errors import ConfigError
from tune_tasks.study import StudyState
from tune_tasks.views import duration, number, parameters, render, rungs
from tune_tasks.views.table import Leaderboard, as_json, as_markdown, leaderboard


def shown(state: StudyState, width: int, limit: int | None = None) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(Leaderboard(leaderboard(state), state.spec.metric, limit))
    return stream.getvalue()


def test_the_best_is_first_then_those_without_a_value_and_failures_last(state: StudyState) -> None:
    rows = leaderboard(state)
    assert [(row.rank, row.trial, row.state) for row in rows] == [
        (1, 0, "completed"),
        (2, 4, "running"),
        (3, 3, "paused"),
        (4, 1, "pruned"),
        (None, 5, "queued"),
        (None, 2, "failed"),
    ]
    assert [row.value for row in rows] == [0.25, 0.4, 0.6, 0.8, None, 3.0]


def test_a_larger_value_leads_where_larger_is_better() -> None:
    story = Story(spec(mode="max"))
    story.open()
    for value in (0.1, 0.9):
        story.train(story.propose({"x": value}), [{"loss": value}], "returned")
    assert [row.trial for row in leaderboard(story.state)] == [1, 0]


def test_equal_values_rank_by_number() -> None:
    story = Story(spec())
    story.open()
    for _ in range(3):
        story.train(story.propose({"x": 0.5}), [{"loss": 0.5}], "returned")
    assert [row.trial for row in leaderboard(story.state)] == [0, 1, 2]


def test_a_failed_trial_says_what_it_raised(state: StudyState) -> None:
    failed = leaderboard(state)[-1]
    assert "ValueError: no" in failed.why
    line = next(line for line in shown(state, 80).splitlines() if " failed " in line)
    assert line.endswith("ValueError: no")


def test_json_has_every_field_of_every_trial(state: StudyState) -> None:
    rows = json.loads(as_json(leaderboard(state)))
    assert len(rows) == 6
    assert rows[0] == {
        "rank": 1,
        "trial": 0,
        "value": 0.25,
        "steps": 2,
        "attempts": 1,
        "state": "completed",
        "params": {"x": 0.1, "kind": "a"},
        "why": "ran all 2 steps",
    }


def test_markdown_keeps_its_columns_whatever_the_texts_hold() -> None:
    story = Story(spec(metric="a|b"))
    story.open()
    story.train(
        story.propose({"x": 0.5, "kind": "p|q\nr"}), [{"a|b": 1.0}], "failed", error="first | line\nlast \\| line"
    )
    text = as_markdown(leaderboard(story.state), "a|b")
    bars = [line.replace("\\\\", "").replace("\\|", "").count("|") for line in text.splitlines()]
    assert bars == [9, 9, 9]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    story = Story(spec(metric="größe_" * 10))
    story.open()
    names = {f"parameter_with_a_long_name_{index}": "値" * 30 for index in range(30)}
    story.train(story.propose(names), [{"größe_" * 10: 1.0}], "failed", error="\x1b[31mred\x1b[0m " + "word " * 50)
    console = Console(width=width)
    for line in shown(story.state, width).splitlines():
        assert console.measure(line).maximum <= width
        assert "\x1b" not in line


@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_parameter_and_every_reason_is_shown_in_full(state: StudyState, width: int) -> None:
    text = " ".join(shown(state, width).split())
    assert "x=0.1 kind=a" in text
    assert "0.8 is not among the best" in text


def test_a_limit_says_how_many_are_left_out(state: StudyState) -> None:
    assert "and 4 more" in shown(state, 80, limit=2)
    assert "more" not in shown(state, 80, limit=6)


def test_an_unknown_format_is_refused_with_the_nearest(state: StudyState) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'markdown'"):
        render(state, "markdwn", io.StringIO())


@pytest.mark.parametrize("form", ["table", "markdown", "json", "html"])
def test_an_empty_study_can_be_shown(form: str) -> None:
    stream = io.StringIO()
    render(Story(spec()).state, form, stream)
    assert stream.getvalue()


def test_rungs_count_the_trials_that_got_there(state: StudyState) -> None:
    story = Story(spec())
    story.open()
    for value in (0.1, 0.2, 0.3):
        story.train(story.propose({"x": value}, budget=1), [{"loss": value}])
    story.advance(0, 3)
    assert rungs(story.state) == [(1, 3), (3, 0)]
    story.train(0, [{"loss": 0.05}] * 2)
    assert rungs(story.state) == [(1, 3), (3, 1)]


def test_numbers_and_times_are_short() -> None:
    assert [number(value) for value in (None, 3, 0.123456, 1e-7, 123456.0)] == [
        "-",
        "3",
        "0.1235",
        "1e-07",
        "1.235e+05",
    ]
    assert [duration(seconds) for seconds in (0, 8.31, 9.97, 59.4, 59.9, 245, 7380)] == [
        "0.0s",
        "8.3s",
        "10s",
        "59s",
        "1m00s",
        "4m05s",
        "2h03m",
    ]
    assert parameters({"a": 0.30000000000000004, "b": True, "c": None}) == "a=0.3 b=True c=None"
