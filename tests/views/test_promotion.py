"""The leaderboard of a promotion: candidates and champion with bounds, every gate, and how an approval stands."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.histories import Story
from tune_tasks.errors import ConfigError
from tune_tasks.events import Approved, CheckpointRef, Evaluated, Gate, Promoting
from tune_tasks.spec import StudySpec
from tune_tasks.views.promotion import Standings, newest, render, standings

KEY = "main-0000/promote"
CHAMPION = {"version": "3", "uri": "models:/m/3", "value": 0.3, "metric": "loss", "mode": "min", "trial": 1}
BOUNDS = {"trial-1-1": {"error": (0.1, 0.2)}, "version-3": {"error": (0.3, 0.4)}}


@pytest.fixture
def story() -> Story:
    spec = StudySpec(
        name="shown",
        objective="o:train",
        metric="loss",
        mode="min",
        space={"x": {"type": "float", "low": 0.0, "high": 1.0}},
        promotion={"evaluate": "o:evaluate", "metric": "error", "approval": "required"},
    )
    story = Story(spec)
    story.open()
    for value in (0.5, 0.4, 0.6, 0.7):
        number = story.propose({"x": value}, budget=1, last=True)
        reference = CheckpointRef(key=f"ckpt/{number}", digest="0", size=1)
        story.train(number, [{"loss": value}], checkpoint=reference)
    return story


def measure(story: Story, model: str, *values: float, error: str | None = None) -> None:
    for seed, value in enumerate(values or (0.0,)):
        metrics = {} if error else {"error": value}
        story.apply(Evaluated(key=KEY, model=model, seed=seed, metrics=metrics, error=error, time=1.0))


def decide(story: Story, *, expires: float | None = None, **told: Any) -> None:
    gates = (
        Gate(name="improvement", passed=True, reason="error 0.15 is better by 0.2 | surely"),
        Gate(name="limits.size", passed=False, reason="size is 9; at most 4 is asked"),
    )
    values = {"trial": 1, "step": 1, "value": 0.4, "champion": {**CHAMPION, "study": None, "path": None}, **told}
    decision = Promoting(key=KEY, position=9, gates=gates, expires=expires, reason="it is better", time=1.0, **values)
    story.apply(decision)


def shown(story: Story, **options: Any) -> Standings:
    return standings(story.state, newest(story.state), url="/s/shown", bounds=BOUNDS, **options)


def written(found: Standings, form: str) -> str:
    stream = io.StringIO()
    render(found, form, stream)
    return stream.getvalue()


def test_candidates_and_champion_stand_beside_each_other_with_what_they_measured(story: Story) -> None:
    measure(story, "trial-1-1", 0.1, 0.2)
    measure(story, "version-3", 0.35)
    decide(story)
    found = shown(story, limit=2)
    assert [(each.rank, each.trial, each.value, each.budget) for each in found.contenders] == [
        (1, 1, 0.4, 1),
        (2, 0, 0.5, 1),
    ]
    assert found.contenders[0].evaluation == {"error": pytest.approx(0.15)}
    assert found.contenders[0].bounds == {"error": (0.1, 0.2)}
    assert found.champion is not None
    assert (found.champion.evaluation, found.champion.bounds) == ({"error": 0.35}, {"error": (0.3, 0.4)})
    assert [gate["name"] for gate in found.gates] == ["improvement", "limits.size"]


def test_what_was_measured_is_shown_beyond_the_limit(story: Story) -> None:
    measure(story, "trial-3-1", 0.1)
    assert [each.trial for each in shown(story, limit=1).contenders] == [1, 3]


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_people_see_figures_with_bounds_gates_with_verdicts_and_the_approval(story: Story, form: str) -> None:
    measure(story, "trial-1-1", 0.15)
    measure(story, "version-3", error="FileNotFoundError")
    decide(story, expires=4000.0)
    text = re.sub(r"\s+", " ", written(shown(story, now=10.0), form))
    for expected in (
        "measured error",
        "0.15 [0.1, 0.2]",
        "x=0.4",
        "champion, version 3",
        "could not be measured",
        "improvement",
        "NO",
        "size is 9; at most 4 is asked",
        "it is better",
        "waits until 1970-01-01 01:06 UTC",
    ):
        assert expected in text


def test_markdown_has_as_many_cells_in_every_row(story: Story) -> None:
    decide(story)
    rows = [line for line in written(shown(story), "markdown").splitlines() if line.startswith("|")]
    counts = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
    assert counts[:-4] == [counts[0]] * (len(rows) - 4)
    assert counts[-4:] == [4] * 4


def test_json_has_everything(story: Story) -> None:
    measure(story, "trial-1-1", 0.15)
    decide(story)
    told = json.loads(written(shown(story), "json"))
    assert (told["study"], told["key"], told["metric"], told["searched"]) == ("/s/shown", KEY, "error", "loss")
    assert told["contenders"][0]["bounds"] == {"error": [0.1, 0.2]}
    assert told["champion"]["value"] == 0.3
    assert told["gates"][1]["passed"] is False


@pytest.mark.parametrize(
    ("expires", "now", "said", "told"),
    [
        (None, 0.0, None, "is asked for once the gates have passed"),
        (100.0, 50.0, None, "waits until 1970-01-01 00:01 UTC"),
        (100.0, 100.0, None, "nobody answered until 1970-01-01 00:01 UTC"),
        (100.0, 200.0, True, "approved by Ada at 1970-01-01 00:00 UTC: it reads all"),
        (100.0, 50.0, False, "rejected by Ada at 1970-01-01 00:00 UTC: it reads all"),
    ],
)
def test_the_standing_of_an_approval_is_told(
    story: Story, expires: float | None, now: float, said: bool | None, told: str
) -> None:
    decide(story, expires=expires)
    if said is not None:
        story.apply(Approved(key=KEY, approved=said, by="Ada", why="it reads all", time=9.0))
    assert shown(story, now=now).approval == told


def test_before_anything_was_decided_the_trials_are_shown(story: Story) -> None:
    found = shown(story)
    assert (found.key, found.gates, len(found.contenders)) == (None, (), 4)
    assert "run promote-best" in found.reason


def test_a_format_that_is_none_is_refused(story: Story) -> None:
    with pytest.raises(ConfigError, match=r"markdwn.*Did you mean 'markdown'"):
        render(shown(story), "markdwn", io.StringIO())


def test_the_view_reads_nothing_but_the_state() -> None:
    source = (Path(__file__).parents[2] / "tune_tasks" / "views" / "promotion.py").read_text()
    assert not re.search(r"tune_tasks\.(store|studies|registry|contest)", source)
