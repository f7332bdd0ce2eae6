"""Progress is drawn on a terminal, told in lines elsewhere, and never in the way."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
import threading
from typing import Self

import pytest
from rich.console import Console

from tests.histories import Story
from tests.views.conftest import spec
from tune_tasks.registry import ModelArtifact
from tune_tasks.study import StudyState
from tune_tasks.views.terminal import Progress, conclude, panel

AT_THE_END = 2
"""Our last state, and rich's own last redraw."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal:
    """A pseudo-terminal whose other end is read as it fills."""

    def __enter__(self) -> Self:
        self.parent, child = pty.openpty()
        self.stream = os.fdopen(child, "w", encoding="utf-8")
        self.text = ""
        self.thread = threading.Thread(target=self._read)
        self.thread.start()
        return self

    def _read(self) -> None:
        data = b""
        while True:
            try:
                piece = os.read(self.parent, 65536)
            except OSError:  # the other end is closed
                break
            data += piece
        self.text = data.decode()

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.thread.join()
        os.close(self.parent)


def lines(states: list[tuple[float, StudyState]]) -> list[str]:
    """What is told of these states at these times where there is no terminal."""
    stream, clock = io.StringIO(), Clock()
    with Progress(stream, clock) as progress:
        for now, state in states:
            clock.now = now
            progress.update(state)
    return stream.getvalue().splitlines()


def text(state: StudyState, width: int = 80) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(panel(state, state.elapsed))
    return stream.getvalue()


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")


def test_the_panel_shows_trials_by_state_the_best_the_rungs_and_what_is_left(state: StudyState) -> None:
    shown = text(state)
    for expected in (
        "shown",
        "5 of 12 begun",
        "1 completed  1 running  1 paused  1 queued  1 pruned  1 failed",
        "loss 0.25 (trial 0 at step 2)",
        "x=0.1 kind=a",
        "3 to 2 steps",
        "8.0s of 10m00s",
    ):
        assert expected in shown


@pytest.mark.parametrize("width", [30, 80, 160])
def test_the_panel_fits_whatever_the_parameters_are(width: int) -> None:
    story = Story(spec(metric="größe_" * 20))
    story.open()
    long = {f"name_{index}": "値" * 40 for index in range(40)}
    story.train(story.propose(long), [{"größe_" * 20: 1.0}], "returned")
    console = Console(width=width)
    assert all(console.measure(line).maximum <= width for line in text(story.state, width).splitlines())


def test_a_terminal_gets_one_panel_that_is_drawn_again_in_place(state: StudyState) -> None:
    clock = Clock()
    with Terminal() as terminal, Progress(terminal.stream, clock) as progress:
        for tick in range(8):
            clock.now = float(tick)
            progress.update(state)
    assert terminal.text.count("╭") == 8 + AT_THE_END
    assert terminal.text.count("\x1b[1A\x1b[2K") >= 8
    assert terminal.text.endswith("\x1b[?25h")


def test_a_terminal_is_drawn_on_four_times_a_second_at_most(state: StudyState) -> None:
    clock = Clock()
    with Terminal() as terminal, Progress(terminal.stream, clock) as progress:
        for tick in range(1000):
            clock.now = tick / 1000
            progress.update(state)
    assert terminal.text.count("╭") == 4 + AT_THE_END


def test_the_last_state_is_shown_also_when_it_came_too_soon_or_the_work_was_interrupted(state: StudyState) -> None:
    stream = io.StringIO()

    def work() -> None:
        with Progress(stream, Clock()) as progress:
            progress.update(Story(spec()).state)
            progress.update(state)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert "loss 0.25" in stream.getvalue().splitlines()[-1]


def test_the_clock_goes_on_between_two_events_of_the_log_while_a_driver_works(state: StudyState) -> None:
    told = lines([(0.0, state), (31.0, state), (70.0, state)])
    assert [line.split()[0] for line in told] == ["8.0s", "39s", "1m18s", "1m18s"]


def test_without_a_terminal_there_are_plain_lines(state: StudyState) -> None:
    told = lines([(0.0, state)])
    assert told[0] == (
        "8.0s of 10m00s  trials 5/12: 1 completed, 1 running, 1 paused, 1 queued, 1 pruned, 1 failed"
        "  new best loss 0.25 (trial 0 at step 2)  x=0.1 kind=a"
    )
    assert not any("\x1b" in line for line in told)


def test_nothing_is_said_until_there_is_something_to_say_or_half_a_minute_is_over(state: StudyState) -> None:
    said = [len(lines([(now, state) for now in range(seconds)])) for seconds in (1, 29, 31, 61)]
    assert said == [2, 2, 3, 4]


def test_a_new_best_and_every_tenth_trial_are_worth_a_line() -> None:
    story = Story(spec(budget={"trials": 40}))
    story.open()
    states: list[tuple[float, StudyState]] = []
    stream, clock = io.StringIO(), Clock()
    with Progress(stream, clock) as progress:
        for index in range(30):
            story.train(story.propose({"x": 0.5}), [{"loss": 0.5 if index == 17 else 1.0}], "returned")
            clock.now = index * 0.5
            progress.update(story.state)
    told = stream.getvalue().splitlines()
    assert states == []
    assert [re.search(r"trials (\d+)", line)[1] for line in told] == ["1", "10", "18", "20", "30", "30"]
    assert ["new best" in line for line in told] == [True, False, True, False, False, False]


def test_a_stream_that_lacks_a_character_breaks_nothing() -> None:
    story = Story(spec(metric="größe"))
    story.open()
    story.train(story.propose({"x": "値"}), [{"größe": 1.0}], "returned")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    with Progress(stream, Clock()) as progress:
        progress.update(story.state)
    conclude(story.state, "/studies/shown", None, stream)
    stream.flush()
    assert b"gr??e" in stream.buffer.getvalue() or b"gr?" in stream.buffer.getvalue()


def test_standard_output_stays_for_results(state: StudyState, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Terminal() as terminal, Progress(terminal.stream, clock) as progress:
        progress.update(state)
        sys.stdout.write('{"the": "result"}\n')
    assert capsys.readouterr().out == '{"the": "result"}\n'
    assert "result" not in terminal.text


def test_the_end_says_what_became_of_the_study_and_its_model(state: StudyState) -> None:
    model = ModelArtifact(
        promoted=True,
        reason="loss 0.25 is the first: there is no champion yet",
        name="shown",
        alias="champion",
        uri="models:/shown/1",
        path="/studies/shown/models/0-2",
        metric="loss",
        mode="min",
        evaluation={"test_accuracy": 0.9743},
        study="/studies/shown",
        study_id="test",
        position=1,
        spec_digest="",
        key="main/promote",
        created=0.0,
    )
    stream = io.StringIO()
    conclude(state, "/studies/shown", model, stream, limit=3)
    told = stream.getvalue()
    for expected in (
        "and 3 more",
        "/studies/shown: 6 trials",
        "models:/shown/1 is the champion",
        "test_accuracy 0.9743",
        "/studies/shown/models/0-2/model.json",
    ):
        assert expected in told
    stays = model.model_copy(update={"promoted": False, "uri": None, "path": None, "reason": "it is worse"})
    stream = io.StringIO()
    conclude(state, "/studies/shown", stays, stream)
    assert "the champion stays" in stream.getvalue()
    assert "it is worse" in stream.getvalue()
