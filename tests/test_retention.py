"""Which checkpoints are discarded, and that the log says so before a file is deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.studies import SPEC, events, write_study
from tune_tasks.errors import Unavailable
from tune_tasks.events import Advance, Checkpointed, CheckpointRef, Discarded, Promoting, Prune
from tune_tasks.retention import discard
from tune_tasks.spec import StudySpec
from tune_tasks.store.local import LocalObjects
from tune_tasks.study import StudyState, Trial
from tune_tasks.testing.histories import History


def save(told: History, trial: int, step: int) -> None:
    reference = CheckpointRef(key=f"ckpt/{trial}/{step}", digest="0" * 64, size=1)
    attempt = told.state.trials[trial].attempts
    told.apply(Checkpointed(trial=trial, attempt=attempt, step=step, checkpoint=reference, time=told.time))


def run(told: History, trial: int, losses: list[float], outcome: Any = "reached") -> None:
    told.start(trial)
    for step, loss in enumerate(losses, start=1):
        told.report(trial, loss)
        save(told, trial, step)
    told.end(trial, outcome)


def history(last: int | None = 1, best: int | None = 1, **promotion: Any) -> History:
    """Trials 0 and 1 are paused, after 1 and 3 steps with a checkpoint each; the best is in the middle of trial 1."""
    told = History(StudySpec(**{**SPEC, "checkpoints": {"keep_last": last, "keep_best": best}, "promotion": promotion}))
    told.plan([{"x": 0.5}, {"x": 0.6}], budget=3)
    run(told, 0, [0.5])
    run(told, 1, [0.4, 0.1, 0.3])
    return told


def kept(told: History) -> list[tuple[int, int]]:
    event = discard(told.state, time=0.0)
    if event is not None:
        told.apply(event)
    return [(item.trial, item.step) for item in told.state.saved()]


def test_the_newest_of_each_trial_that_may_go_on_and_the_best_of_the_study_are_kept():
    assert kept(history()) == [(0, 1), (1, 2), (1, 3)]


def test_of_a_trial_that_is_over_only_what_is_among_the_best_is_kept():
    told = history()
    told.prune(0, 1)
    assert kept(told) == [(1, 2)]


def test_the_best_of_each_trial_that_a_promotion_measures_again_is_kept():
    told = history(best=1, evaluate="objective:evaluate", candidates=2)
    told.prune(0, 1)
    told.prune(1, 1)
    assert kept(told) == [(0, 1), (1, 2)]


def test_a_checkpoint_of_a_failed_trial_is_not_among_the_best():
    told = history()
    told.plan([{"x": 0.1}], budget=2)
    run(told, 2, [0.0], "failed")
    assert kept(told) == [(0, 1), (1, 2), (1, 3)]


@pytest.mark.parametrize(("last", "best"), [(None, 1), (3, 1), (1, 4), (1, None)])
def test_more_is_kept_where_more_is_asked_for_and_none_means_all(last: int | None, best: int | None):
    assert kept(history(last, best)) == [(0, 1), (1, 1), (1, 2), (1, 3)]


def test_what_a_promotion_named_is_kept():
    told = history()
    why = {"value": 0.4, "champion": None, "position": 1, "reason": "first", "time": 0.0}
    told.apply(Promoting(key="main-0000/promote", trial=1, step=1, **why))
    assert kept(told) == [(0, 1), (1, 1), (1, 2), (1, 3)]


def test_where_all_is_kept_nothing_is_recorded():
    assert discard(history(None, None).state, time=0.0) is None


def test_a_place_that_another_trial_still_names_is_not_deleted():
    told = history()
    told.decide([Advance(trial=1, budget=9, last=True, reason="copies the better one", donor=0)])
    told.prune(0)
    event = discard(told.state, time=0.0)
    assert event is not None
    assert 0 in event.trial
    assert "ckpt/0/1" not in event.keys
    assert "ckpt/0/1" in told.state.checkpoint_keys()


@pytest.mark.parametrize(("trial", "step"), [(0, 1), (1, 3), (0, 7)])
def test_the_fold_refuses_to_lose_what_a_trial_goes_on_from_and_what_is_not_there(trial: int, step: int):
    with pytest.raises(ValueError, match=f"step {step}"):
        history().apply(Discarded(trial=[trial], step=[step], keys=(), time=0.0))


def folders(study: tt.Study) -> set[str]:
    return {key.rpartition("/data/")[0] for key in study.objects.list("ckpt/") if "/data/" in key}


@pytest.mark.parametrize("flow", ["rounds", "streaming"])
def test_a_study_keeps_no_more_files_than_its_log_names(tmp_path: Path, flow: str):
    changes = {"checkpoints": {"keep_last": 1, "keep_best": 2}, "execution": {"runner": "inline", "flow": flow}}
    study = tt.tune(write_study(tmp_path, **changes))
    assert folders(study) == study.state.checkpoint_keys()
    assert len(study.state.checkpoint_keys()) == 2
    assert tt.promote_best(study).promoted
    assert sum(event.type == "checkpointed" for event in events(study.url)) > 15


def test_the_checkpoints_of_an_attempt_that_another_one_began_before_are_not_left_behind(tmp_path: Path):
    spec = write_study(tmp_path, checkpoints={"keep_last": None, "keep_best": None})
    objective = tmp_path / "objective.py"
    objective.write_text(objective.read_text().replace("tt.get_checkpoint()", "None"))
    study = tt.tune(spec)
    assert any(trial.attempts > 1 for trial in study.trials)
    assert folders(study) == study.state.checkpoint_keys()
    assert not [event for event in events(study.url) if event.type == "discarded"]


def test_nothing_is_deleted_before_the_log_has_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    early, gone = [], []
    delete = LocalObjects.delete

    def watched(self: LocalObjects, key: str) -> None:
        if key.startswith("ckpt/"):
            discarded = {place for event in events(self.url) if isinstance(event, Discarded) for place in event.keys}
            (gone if key.rpartition("/")[0].removesuffix("/data") in discarded else early).append(key)
        delete(self, key)

    monkeypatch.setattr(LocalObjects, "delete", watched)
    tt.tune(write_study(tmp_path, checkpoints={"keep_last": 1, "keep_best": 1}))
    assert gone
    assert early == []


def test_what_cannot_be_deleted_costs_only_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(self: LocalObjects, key: str) -> None:
        raise Unavailable("no")

    from tune_tasks.store import retry

    monkeypatch.setattr(retry, "_FIRST", 0.001)
    monkeypatch.setattr(LocalObjects, "delete", refuse)
    study = tt.open_study(write_study(tmp_path, unsafe_single_writer=True, checkpoints={"keep_last": 1}))
    study.objects._deadline = 0.01
    study = tt.tune(study)
    assert study.state.done
    assert "`tune-tasks gc` will do it" in caplog.text
    assert folders(study) > study.state.checkpoint_keys()


class Copies:
    """A scheduler for the test below: runs two trials for 2 steps, then has trial 1 go on from trial 0 for 2 more."""

    max_budget = 4

    def first_budget(self, trial: int) -> int:
        return 2

    def review(self, history: StudyState, *, closing: bool) -> list[Advance | Prune]:
        one = history.trials[1] if len(history.trials) == 2 else None
        if one is None or one.state != "paused" or history.trials[0].state != "paused":
            return []
        return [
            Prune(trial=0, reason="has given what it had"),
            Advance(trial=1, budget=4, last=True, reason="copies trial 0", donor=0, params={"x": 0.9}),
        ]

    def watch(self, history: StudyState, trial: Trial) -> Prune | None:
        return None


def test_a_trial_goes_on_from_another_ones_checkpoint_with_new_parameters_and_no_second_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    uploads: list[str] = []
    upload = LocalObjects.upload
    monkeypatch.setattr(LocalObjects, "upload", lambda self, file, key: uploads.append(key) or upload(self, file, key))
    monkeypatch.setattr(tt.plugins, "scheduler", lambda spec: Copies())
    changes = {"budget": {"trials": 2, "concurrency": 1}, "checkpoints": {"keep_best": None, "keep_last": None}}
    study = tt.tune(write_study(tmp_path, **changes))
    donor, heir = study.trials
    assert [step for step, _ in donor.checkpoints] == [1, 2]
    assert heir.checkpoints[0] == donor.checkpoints[1]
    assert sum(key.startswith("ckpt/") for key in uploads) == 2 + 2 + 2
    state = json.loads((study.objects.read(f"{donor.checkpoints[1][1].key}/data/weight.json")) or b"")
    weight = state["weight"]
    for report in heir.reports[2:]:
        weight += 0.5 * (0.9 - weight)
        assert report.metrics["weight"] == weight
    assert heir.params == {"x": 0.9}
    assert [item.step for item in tt.open_study(study.url).state.saved()] == [1, 2, 2, 3, 4]
