"""Every event is told on one line, with what it is about, its figures and its reasons."""

from __future__ import annotations

from random import Random
from typing import get_args

import pytest

from tests.store.happenings import Happenings
from tune_tasks.events import (
    Advance,
    Amended,
    Assignment,
    Checkpointed,
    CheckpointRef,
    Created,
    Discarded,
    Ended,
    Event,
    Gate,
    Judged,
    Launched,
    Opened,
    Planned,
    Promoted,
    Promoting,
    Proposal,
    Prune,
    Pruned,
    Reports,
    Started,
)
from tune_tasks.operate.words import TYPES, about, words


def planned(count: int, *going_on: int) -> Planned:
    new = range(count)
    return Planned(
        key="main-0001/sample",
        run="main",
        round=1,
        batch="main-0001",
        proposals=tuple(Proposal(number=n, params={"x": 0.25}, reason="random") for n in new),
        assignments=(
            *(Assignment(trial=n, budget=1, last=False, reason="random") for n in new),
            *(Assignment(trial=n, budget=3, last=False, reason=f"rank {n}") for n in going_on),
        ),
        exhausted=False,
        time=1.0,
    )


def judged(advances: int, prunes: int, *, done: bool = False) -> Judged:
    return Judged(
        key="main-0001/evaluate",
        batch="main-0001",
        advances=tuple(Advance(trial=n, budget=9, last=False, reason=f"rank {n}") for n in range(advances)),
        prunes=tuple(Prune(trial=10 + n, reason="too far behind") for n in range(prunes)),
        done=done,
        best=1,
        value=0.5,
        reason="all trials are over" if done else "goes on",
        time=1.0,
    )


def ended(outcome: str, error: str | None = None, *, retry: bool = False) -> Ended:
    return Ended(trial=4, attempt=2, outcome=outcome, error=error, retry=retry, time=1.0)


REPORTS = Reports(
    trial=[3, 3, 5],
    attempt=[1, 1, 2],
    step=[1, 2, 7],
    time=[1.0, 2.0, 3.0],
    metrics={"loss": [0.5, 0.25, 0.75], "accuracy": [None, None, 0.5]},
)
REFERENCE = CheckpointRef(key="ckpt/000003/1/2-00000000", digest="d", size=1_234_567)

TOLD: list[tuple[Event, str]] = [
    (planned(1), "main-0001: new trial 0 to 1 step: x=0.25 (random)"),
    (planned(8), "main-0001: new trials 0-7 to 1 step (random)"),
    (planned(0, 3, 5), "main-0001: trials 3, 5 to 3 steps (rank 3; rank 5)"),
    (planned(2, 7), "main-0001: new trials 0-1 to 1 step (random); trial 7 to 3 steps (rank 7)"),
    (planned(0, *range(9)), "main-0001: trials 0-8 to 3 steps (rank 0; rank 1; rank 2; ...)"),
    (planned(0).model_copy(update={"exhausted": True}), "main-0001: the sampler has nothing more to propose"),
    (Amended(spec={}, changes=("budget.trials is 9",), time=1.0), "the spec was changed: budget.trials is 9"),
    (Opened(epoch=2, owner="host:1", time=1.0), "driver host:1 took the study over"),
    (Started(trial=3, attempt=1, step=0, worker="host:2", time=1.0), "trial 3 from the beginning, attempt 1 on host:2"),
    (
        Started(trial=3, attempt=2, step=4, worker="host:2", time=1.0),
        "trial 3 from the checkpoint of step 4, attempt 2 on host:2",
    ),
    (REPORTS, "trial 3 steps 1-2: loss=0.25; trial 5 step 7: loss=0.75 accuracy=0.5"),
    (
        Checkpointed(trial=3, attempt=1, step=2, checkpoint=REFERENCE, time=1.0),
        "trial 3 saved step 2: 1.23 MB at ckpt/000003/1/2-00000000",
    ),
    (
        Discarded(trial=[3, 4], step=[1, 1], keys=("a", "b"), time=1.0),
        "2 checkpoints are not needed any more, of trials 3-4",
    ),
    (ended("reached"), "trial 4 ran its budget (attempt 2)"),
    (
        ended("failed", "Traceback\n  File x\nValueError: no", retry=True),
        "trial 4 failed: ValueError: no; it is tried again (attempt 2)",
    ),
    (ended("lost", "node died"), "trial 4 lost its worker: node died (attempt 2)"),
    (Pruned(trial=4, step=3, reason="rank 9 of 9", time=1.0), "trial 4 is pruned after step 3: rank 9 of 9"),
    (
        Launched(key="k", batch="b", states={"paused": 3}, best=1, value=0.123456, reason="all ran", time=1.0),
        "b ran: 3 paused; best is trial 1 with 0.1235; all ran",
    ),
    (judged(1, 1), "main-0001: trial 0 advances to 9 steps (rank 0); trial 10 is pruned (too far behind); goes on"),
    (judged(5, 4), "main-0001: trials 0-4 advance; trials 10-13 are pruned; goes on"),
    (judged(0, 0, done=True), "main-0001: the study is done: all trials are over"),
    (
        Promoting(key="k", trial=3, step=2, value=0.5, champion=None, position=9, reason="it is the first", time=1.0),
        "trial 3 at step 2: it is the first",
    ),
    (
        Promoting(
            key="k",
            trial=3,
            step=2,
            value=0.5,
            champion=None,
            position=9,
            gates=(
                Gate(name="improvement", passed=True, reason="it is the first"),
                Gate(name="limits.size", passed=True, reason="size is 3; at most 4 is asked"),
            ),
            expires=2.0,
            reason="it is the first; 1 more gate passes",
            time=1.0,
        ),
        "trial 3 at step 2: it is the first; 1 more gate passes; size is 3; at most 4 is asked; waits for approval",
    ),
    (
        Promoted(key="k", model={"promoted": False, "reason": "it is worse"}, time=1.0),
        "the champion stays: it is worse",
    ),
    (
        Promoted(key="k", model={"promoted": True, "uri": "u", "alias": "champion", "reason": "r"}, time=1.0),
        "u is the champion: r",
    ),
]


@pytest.mark.parametrize(
    ("event", "told"), TOLD, ids=[f"{event.type}-{index}" for index, (event, _) in enumerate(TOLD)]
)
def test_an_event_is_told_in_words(event: Event, told: str) -> None:
    assert words(event) == told


def test_a_created_study_says_what_is_searched() -> None:
    happenings = Happenings(Random(1))
    (event,) = happenings.events
    assert isinstance(event, Created)
    assert words(event).startswith("study small: min loss of objective:train, ")
    assert event.study in words(event)


def test_every_type_of_event_is_known_and_told_on_one_line_without_control_characters() -> None:
    assert {*TYPES} == {kind.model_fields["type"].default for kind in get_args(Event)}
    happenings = Happenings(Random(3))
    happenings.happen(3000)
    assert {event.type for event in happenings.events} == {*TYPES}
    for event in happenings.events:
        assert words(event).isprintable()
    assert words(ended("failed", "\x1b[31mred\x1b[0m\nlast\ttab")) == "trial 4 failed: last tab (attempt 2)"


def test_what_an_event_says_of_one_trial_is_told_alone() -> None:
    assert about(REPORTS, 5) == Reports(
        trial=[5], attempt=[2], step=[7], time=[3.0], metrics={"loss": [0.75], "accuracy": [0.5]}
    )
    assert about(REPORTS, 4) is None
    assert words(about(judged(5, 4), 11) or judged(0, 0)) == "main-0001: trial 11 is pruned (too far behind); goes on"
    assert about(judged(5, 4), 9) is None
    assert words(about(planned(8, 9), 9) or planned(0)) == "main-0001: trial 9 to 3 steps (rank 9)"
    assert about(ended("reached"), 4) == ended("reached")
    assert about(ended("reached"), 5) is None
    donated = judged(0, 0).model_copy(
        update={"advances": (Advance(trial=1, budget=3, last=False, reason="r", donor=7),)}
    )
    assert words(about(donated, 7) or donated).startswith(
        "main-0001: trial 1 advances to 3 steps from the checkpoint of trial 7 (r)"
    )
