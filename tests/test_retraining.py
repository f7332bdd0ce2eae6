"""The next run of a schedule: begun from the last one, or skipped and why, and never behind a later one's back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.studies import write_study
from tune_tasks.errors import ConfigError
from tune_tasks.registry import candidate
from tune_tasks.retraining import Retraining, superseded
from tune_tasks.store import open_objects
from tune_tasks.store.ledger import Ledger


def schedule(folder: Path, **changes: Any) -> Path:
    return write_study(folder, **changes)


def ran(path: Path, run: str, data: str | None, *, promote: bool = True) -> tt.Study:
    """A run of the schedule from its beginning to its end."""
    study = opened(tt.retrain(path, run=run, data=data))
    tt.tune(study)
    if promote:
        tt.promote_best(study)
    return study


def opened(outcome: Retraining) -> tt.Study:
    assert outcome.study is not None, outcome.reason
    return outcome.study


def entries(folder: Path) -> list[Any]:
    return Ledger(open_objects(str(folder / "studies" / "_series")), "small").entries()


def test_the_first_run_is_a_study_of_its_own_that_promotes_for_the_series(tmp_path: Path) -> None:
    outcome = tt.retrain(schedule(tmp_path), run="2026-11-14", data="week 1")
    study = opened(outcome)
    assert study.url == str(tmp_path / "studies" / "small-2026-11-14") or study.url.endswith("/small-2026-11-14")
    assert (study.spec.series, study.spec.data, study.spec.start) == ("small", "week 1", ())
    assert (study.spec.model, study.spec.owner) == ("small", "small")
    assert (outcome.previous, outcome.reason) == (None, "begins afresh: there is no earlier run to learn from")
    assert entries(tmp_path) == [{"run": "2026-11-14", "study": "small-2026-11-14", "data": "week 1"}]


def test_the_next_run_tries_the_best_of_the_last_one_first_and_says_from_where(tmp_path: Path) -> None:
    path = schedule(tmp_path, retrain={"warm_start": 3}, start=[{"x": 0.25}])
    first = ran(path, "2026-11-14", "week 1")
    outcome = tt.retrain(path, run="2026-11-21", data="week 2")
    second = tt.tune(opened(outcome))
    best = sorted(first.state.ranked(), key=lambda trial: (trial.value, trial.number))[:3]
    assert [trial.params for trial in second.trials[:4]] == [{"x": 0.25}, *(t.params for t in best if t.number)][:4]
    assert second.trials[1].reason == (f"from trial {best[0].number} of small-2026-11-14: loss {best[0].value:.4g}")
    assert second.state.parent == outcome.previous == first.url
    assert outcome.reason == "begins with 3 configurations of small-2026-11-14"
    assert tt.promote_best(second).name == "small"


def test_configurations_that_do_not_fit_the_space_any_more_are_left_out(tmp_path: Path) -> None:
    space = {"x": {"type": "float", "low": 0.0, "high": 1.0}, "epochs": 3}
    first = ran(schedule(tmp_path, space=space), "1", "week 1")
    narrow = {"x": {"type": "float", "low": 0.0, "high": 0.5}, "epochs": 4}
    second = opened(tt.retrain(schedule(tmp_path, space=narrow), run="2", data="week 2"))
    inside = sum(trial.params["x"] <= 0.5 for trial in first.trials)
    assert len(second.spec.start) == min(inside, 5)
    assert all(start.params == {"x": start.params["x"], "epochs": 4} for start in second.spec.start)


def test_a_run_that_is_retried_finds_its_own_study(tmp_path: Path) -> None:
    path = schedule(tmp_path)
    ran(path, "1", "week 1")
    second = tt.tune(opened(tt.retrain(path, run="2", data="week 2")))
    again = tt.retrain(path, run="2", data="week 2")
    assert opened(again).log.head == second.log.head
    assert again.reason == "goes on: it was begun already"
    assert opened(tt.retrain(path, run="1", data="week 1")).url.endswith("small-1")
    assert len(entries(tmp_path)) == 2


def test_a_run_that_was_killed_before_its_study_was_there_is_begun_again(tmp_path: Path) -> None:
    path = schedule(tmp_path)
    ledger = Ledger(open_objects(str(tmp_path / "studies" / "_series")), "small")
    ledger.append({"run": "1", "study": "small-1", "data": "week 1"}, after=0)
    assert opened(tt.retrain(path, run="2", data="week 1")).spec.data == "week 1", "that data was never trained on"
    assert opened(tt.retrain(path, run="1", data="week 1")).url.endswith("small-1")


def test_a_run_with_other_data_than_it_was_begun_with_is_refused(tmp_path: Path) -> None:
    path = schedule(tmp_path)
    opened(tt.retrain(path, run="1", data="week 1"))
    with pytest.raises(ConfigError, match="data: 'week 2' is not allowed; run 1 of small was begun with 'week 1'"):
        tt.retrain(path, run="1", data="week 2")


@pytest.mark.parametrize("skip", [True, False])
def test_a_run_whose_data_has_not_changed_is_skipped_unless_the_spec_wants_it(tmp_path: Path, skip: bool) -> None:
    path = schedule(tmp_path, retrain={"skip_unchanged": skip})
    ran(path, "1", "week 1")
    outcome = tt.retrain(path, run="2", data="week 1")
    assert (outcome.study is None) == skip
    assert not skip or outcome.reason == "the data is 'week 1' still, as in run 1"
    assert len(entries(tmp_path)) == 2 - skip


def test_data_that_nobody_named_is_taken_to_have_changed(tmp_path: Path) -> None:
    path = schedule(tmp_path)
    ran(path, "1", None)
    opened(tt.retrain(path, run="2"))


def test_the_data_of_a_run_that_is_not_finished_is_not_begun_anew(tmp_path: Path) -> None:
    path = schedule(tmp_path)
    opened(tt.retrain(path, run="1", data="week 1"))
    outcome = tt.retrain(path, run="2", data="week 1")
    assert outcome.reason == "the data is 'week 1' still, as in run 1, which is not finished: go on with that"


def test_after_a_refused_promotion_the_schedule_cools_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = schedule(tmp_path, retrain={"cooldown": "2h"}, promotion={"registry": "none", "min_improvement": 10})
    first = ran(path, "1", "week 1")
    assert first.state.promotions[-1]["promoted"]
    refused = ran(path, "2", "week 2")
    assert not refused.state.promotions[-1]["promoted"]
    outcome = tt.retrain(path, run="3", data="week 3")
    assert outcome.study is None
    assert outcome.reason.startswith("cooled down until ")
    assert "the model of run 2 was refused: " in outcome.reason
    later = refused.state.promotions[-1]["created"] + 2 * 3600
    monkeypatch.setattr("tune_tasks.retraining.time.time", lambda: later)
    opened(tt.retrain(path, run="3", data="week 3"))


def test_two_that_enter_at_once_are_both_in_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, append, others = schedule(tmp_path), Ledger.append, ["1"]

    def late(ledger: Ledger, entry: Any, after: int) -> bool:
        while others:
            opened(tt.retrain(path, run=others.pop(), data="week 1"))
        return append(ledger, entry, after)

    monkeypatch.setattr(Ledger, "append", late)
    opened(tt.retrain(path, run="2", data="week 2"))
    assert [entry["run"] for entry in entries(tmp_path)] == ["1", "2"]


def test_a_run_is_superseded_once_a_later_one_has_promoted(tmp_path: Path) -> None:
    path = schedule(tmp_path)
    old = tt.tune(opened(tt.retrain(path, run="1", data="week 1")))
    new = ran(path, "2", "week 2", promote=False)
    assert superseded(old, []) is None
    assert superseded(old, [None, old.url]) is None
    said = "run 1 of small is superseded: run 2, which began later, has promoted"
    assert superseded(old, [old.url, new.url]) == said
    assert superseded(old, [f"{new.url}-final"]) == said
    assert superseded(new, [old.url, new.url]) is None
    assert superseded(tt.train_final(old), [new.url]) == said
    assert superseded(tt.open_study(schedule(tmp_path)), [new.url]) is None


def test_overlapping_runs_do_not_both_promote(tmp_path: Path) -> None:
    path = schedule(tmp_path)
    old = opened(tt.retrain(path, run="1", data="week 1"))
    new = opened(tt.retrain(schedule(tmp_path, start=[{"x": 0.1}], budget={"trials": 1}), run="2", data="week 2"))
    tt.tune(new)
    assert tt.promote_best(new).promoted
    tt.tune(old)
    value, champion = candidate(old.state).value, candidate(new.state).value
    assert value < champion, "the older run would win by its figures"
    model = tt.promote_best(old)
    assert not model.promoted
    assert model.reason == "run 1 of small is superseded: run 2, which began later, has promoted"


def test_a_run_that_is_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run: 'small-2026/11' is not a name"):
        tt.retrain(schedule(tmp_path), run="2026/11")
    assert not (tmp_path / "studies").exists()


def test_a_schedule_begins_with_the_study_that_it_grew_out_of(tmp_path: Path) -> None:
    path = schedule(tmp_path, data="week 1")
    study = tt.tune(path)
    tt.promote_best(study)
    assert tt.retrain(path, run="1").reason == "the data is 'week 1' still, as in study small"
    outcome = tt.retrain(path, run="1", data="week 2")
    assert outcome.reason == "begins with 5 configurations of small"
    assert outcome.previous == study.url
    first = tt.tune(opened(outcome))
    assert not tt.promote_best(first).promoted
    assert first.state.promotions[0]["champion"]["study"] == study.url
