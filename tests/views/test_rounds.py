"""What each round decided, from a state."""

from __future__ import annotations

from tests.histories import Story
from tests.views.conftest import spec
from tests.views.test_html import Checker
from tune_tasks.events import Advance, Assignment, Judged, Launched, Planned, Proposal, Prune
from tune_tasks.study import StudyState
from tune_tasks.views.html import render
from tune_tasks.views.rounds import SHOWN, Round, as_html, rounds

EVIL = "<script>alert(1)</script>"


def told(story: Story, number: int, reason: str | None) -> None:
    """One more round of two trials; with a reason, it was launched and judged."""
    first, batch = len(story.state.trials), f"main-{number:04d}"
    proposals = tuple(Proposal(number=first + k, params={"x": 0.1, "kind": "a"}, reason="random") for k in (0, 1))
    assignments = tuple(Assignment(trial=first + k, budget=2, last=False, reason="new") for k in (0, 1))
    about = {"batch": batch, "time": story.time}
    story.apply(
        Planned(
            key=f"main/{number}",
            run="main",
            round=number,
            proposals=proposals,
            assignments=assignments,
            exhausted=False,
            **about,
        )
    )
    if reason is None:
        return
    story.open()
    story.train(first, [{"loss": 0.5}, {"loss": 0.25}])
    story.train(first + 1, [{"loss": 0.9}, {"loss": 0.8}])
    best = {"best": first, "value": 0.25, "reason": reason}
    story.apply(Launched(key=f"{batch}/launch", states={"paused": 2}, **about, **best))
    advances = (Advance(trial=first, budget=4, last=False, reason="among the best"),)
    prunes = (Prune(trial=first + 1, reason="not among the best"),)
    story.apply(Judged(key=f"{batch}/evaluate", advances=advances, prunes=prunes, done=False, **about, **best))


def test_a_round_tells_what_it_tried_who_advances_who_is_pruned_and_why() -> None:
    story = Story(spec())
    told(story, 0, "one of two advances")
    told(story, 1, None)
    assert rounds(story.state) == [
        Round("main-0000", (0, 1), {"paused": 2}, (0,), (1,), 0.25, "one of two advances"),
        Round("main-0001", (2, 3), {}, (), (), None, None),
    ]
    text = " ".join(Checker(render(story.state)).text)
    assert "What each round decided" in text
    assert "main-0000 2: 0, 1 2 paused 1: 0 1: 1 0.25 one of two advances" in text
    assert "main-0001 2: 2, 3 - - - - not decided yet" in text


def test_what_a_round_says_is_escaped_and_many_rounds_are_cut_short() -> None:
    one = Round(EVIL, tuple(range(20)), {}, (), (), None, EVIL)
    page = as_html([one] * (SHOWN + 3), EVIL)
    assert EVIL not in page
    assert page.count("<tr>") == SHOWN + 1
    assert "and 3 earlier rounds" in page
    assert "20: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ..." in page
    assert as_html([], "loss") == ""


def test_a_study_without_a_round_has_no_such_section(state: StudyState) -> None:
    empty = Story(spec()).state
    assert "What each round decided" not in render(empty)
    assert rounds(empty) == []
