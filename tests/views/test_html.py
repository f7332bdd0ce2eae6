"""The page is whole, loads nothing, and escapes what users write."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from tests.histories import Story
from tests.views.conftest import spec
from tune_tasks.study import StudyState
from tune_tasks.views.html import CURVES, MOST, POINTS, curves, history, panels, render


class Checker(HTMLParser):
    """Notes the tags, the text, and everything that is not closed in its place."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def test_every_element_is_closed_in_its_place_and_nothing_is_loaded(state: StudyState) -> None:
    page = Checker(render(state))
    assert page.open == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "img", "iframe"})
    assert not any(name in {"src", "href"} for _, attributes in page.tags for name in attributes)
    assert "url(" not in render(state)


def test_the_page_tells_what_was_found_and_what_was_tried_pruned_and_why(state: StudyState) -> None:
    told = " ".join(Checker(render(state)).text)
    for expected in ("shown", "0.25", "0.8 is not among the best", "ValueError: no", "x=0.1 kind=a", "Not done yet."):
        assert expected in told
    assert len(re.findall("<tr>", render(state).partition('class="tried"')[2].partition("<tbody>")[2])) == 6


def test_what_users_write_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    space = {"x": {"type": "categorical", "choices": [evil, "n"]}}
    story = Story(spec(metric=evil, space=space))
    story.open()
    story.train(story.propose({"x": evil}), [{evil: 1.0}], "returned")
    story.train(story.propose({"x": "n"}), [{evil: 2.0}], "failed", error=evil)
    story.finish(evil)
    assert "<script" not in render(story.state)
    assert Checker(render(story.state)).open == []


def test_curves_have_the_colours_of_the_states_and_the_best_is_drawn_last(state: StudyState) -> None:
    styles = re.findall(r'<(?:polyline|circle) class="(\w+)', curves(state))
    assert styles == ["pruned", "paused", "running", "best"]


def test_the_best_so_far_never_gets_worse(state: StudyState) -> None:
    stairs = re.search(r'<polyline class="best" points="([^"]*)"', history(state))
    assert stairs is not None
    rows = [float(point.split(",")[1]) for point in stairs[1].split()]
    assert rows == sorted(rows)
    assert len(re.findall("<circle", history(state))) == 4


def test_each_parameter_that_is_searched_has_a_chart() -> None:
    space = {
        "rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
        "layers": {"type": "int", "low": 1, "high": 3},
        "kind": {"type": "categorical", "choices": [True, None, "a"]},
        "fixed": 3,
        "depth": {"type": "int", "low": 1, "high": 9, "when": {"kind": "a"}},
    }
    story = Story(spec(space=space))
    story.open()
    for kind in (True, None, "a"):
        params = {"rate": 0.1, "layers": 2, "kind": kind, "fixed": 3, **({"depth": 4} if kind == "a" else {})}
        story.train(story.propose(params), [{"loss": 1.0}], "returned")
    drawn = list(panels(story.state))
    assert [chart.count("<circle") for chart in drawn] == [3, 3, 3, 1]
    assert re.findall(r'class="tick"[^>]*>([^<]*)<', drawn[1])[-3:] == ["1", "2", "3"]


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [-5.0, 5.0], [1e-9, 1e9], [1e300, -1e300], [float("nan"), 1.0]])
def test_any_finite_values_can_be_drawn(values: list[float]) -> None:
    story = Story(spec())
    story.open()
    story.train(story.propose({"x": 0.5, "kind": "a"}), [{"loss": value} for value in values], "returned")
    page = render(story.state)
    assert "nan" not in re.sub(r"<style>.*</style>", "", page)
    assert "inf" not in re.sub(r"<style>.*</style>", "", page)


def test_of_very_many_trials_some_are_drawn_and_listed_the_best_among_them() -> None:
    story = Story(spec())
    story.open()
    for index in range(MOST + 40):
        story.train(story.propose({"x": 0.5, "kind": "a"}), [{"loss": float(MOST - index)}], "returned")
    assert MOST / 2 < history(story.state).count("<circle") <= MOST
    drawn = next(panels(story.state))
    assert MOST / 2 < drawn.count("<circle") <= MOST
    assert f"trial {MOST + 39}, completed" in drawn, "the best one is missing"
    page = render(story.state)
    assert f"Parameters of {drawn.count('<circle')} of {MOST + 40} trials, the best among them" in page
    assert page.count("</i>completed</td>") == MOST
    assert "And 40 trials more, all of which are in <code>tune-tasks export</code>" in page


def test_a_large_study_is_thinned_out_and_says_so() -> None:
    story = Story(spec())
    story.open()
    for index in range(CURVES + 100):
        reports = [{"loss": 1.0 + index + 1 / (step + 1)} for step in range(1000 if index == 0 else 2)]
        story.train(story.propose({"x": 0.5, "kind": "a"}), reports, "returned")
    drawn = re.findall(r'<polyline class="[^"]*" points="([^"]*)"', curves(story.state))
    assert CURVES / 2 < len(drawn) <= CURVES
    assert max(len(points.split()) for points in drawn) <= POINTS + 1
    assert f"of {CURVES + 100} trials, the best among them" in render(story.state)
