"""The few lines of a message: title, best trial, verdict, and what became of the model."""

from __future__ import annotations

from pathlib import Path

import pytest

import tune_tasks as tt
from tests.studies import write_study
from tune_tasks.study import StudyState
from tune_tasks.views import number
from tune_tasks.views.summary import summary, title


@pytest.fixture
def study(tmp_path: Path) -> tt.Study:
    return tt.open_study(write_study(tmp_path))


def test_a_study_that_has_nothing_yet_says_so(study: tt.Study) -> None:
    assert title(study.state) == "small: no value yet, not done with 0 of 9 trials"
    assert summary(study.state) == ""


def test_a_promoted_study_says_who_won_by_which_parameters_and_why(study: tt.Study) -> None:
    model = tt.promote_best(tt.tune(study))
    best = study.best
    assert best is not None
    assert title(study.state) == f"small: loss {number(best.value)}, done with 9 of 9 trials"
    assert summary(study.state).splitlines() == [
        f"best: trial {best.number} at step {best.best_step}, x={number(best.params['x'])}",
        "verdict: all 9 trials are over",
        f"model: {model.uri} is the champion: {model.reason}",
    ]


def test_where_the_champion_stays_or_a_person_is_asked_that_is_said(tmp_path: Path, study: tt.Study) -> None:
    tt.promote_best(tt.tune(study))
    again = tt.promote_best(study, run="again")
    assert summary(study.state).endswith(f"model: the champion stays: {again.reason}")
    asked = tt.tune(write_study(tmp_path / "asked", promotion={"registry": "none", "approval": "required"}))
    assert tt.promote_best(asked).pending
    assert "model: trial 0 waits for approval: loss " in summary(asked.state)


def test_failed_trials_are_counted_and_no_text_can_add_a_line(state: StudyState) -> None:
    state.reason = "so\nmodel: forged"
    assert f"failed: {state.count('failed')} of {len(state.trials)} trials" in summary(state)
    assert "verdict: so model: forged" in summary(state)
    assert len(summary(state).splitlines()) == 3
