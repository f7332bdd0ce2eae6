"""The four tasks: each can be run twice with one result, and each picks up what an earlier one left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tune_tasks as tt
from tests.studies import events, story, write_study
from tune_tasks.errors import ConfigError, Fenced
from tune_tasks.events import Opened
from tune_tasks.steps import STEPS, perform


@pytest.fixture
def study(tmp_path: Path) -> tt.Study:
    return tt.open_study(write_study(tmp_path))


def test_the_four_tasks_run_a_study_to_its_end(study: tt.Study) -> None:
    for _ in range(20):
        batch = tt.sample(study)
        outcome = tt.launch_trials(study, batch)
        verdict = tt.evaluate_and_prune(study, batch)
        assert sum(outcome.states.values()) == len(batch.trials)
        if verdict.done:
            break
    assert verdict.reason == "all 9 trials are over"
    assert len(study.trials) == 9
    assert study.best is not None
    assert study.best.value == min(trial.value for trial in study.trials if trial.value is not None)
    assert [report.step for report in study.best.reports] == list(range(1, study.best.budget + 1))


def test_every_task_run_twice_gives_the_same_and_records_nothing_more(study: tt.Study) -> None:
    batch = tt.sample(study)
    outcome = tt.launch_trials(study, batch)
    verdict = tt.evaluate_and_prune(study, batch)
    told = story(study.url)
    assert tt.sample(study, round=0) == batch
    assert tt.launch_trials(study, batch) == outcome
    assert tt.evaluate_and_prune(study, batch) == verdict
    assert story(study.url) == told


def test_sampling_again_before_the_verdict_gives_the_batch_that_is_there(study: tt.Study) -> None:
    assert tt.sample(study) == tt.sample(study)
    assert len(study.trials) == 4


def test_a_new_pipeline_run_takes_over_what_another_left_waiting(study: tt.Study) -> None:
    first = tt.sample(study, run="monday")
    second = tt.sample(study, run="tuesday", count=6)
    assert [number for number, _ in second.trials][:4] == [number for number, _ in first.trials]
    assert len(second.trials) == 6


def test_a_done_study_gets_an_empty_batch_and_keeps_its_log(study: tt.Study) -> None:
    study = tt.tune(study)
    told = story(study.url)
    batch = tt.sample(study, run="later")
    assert batch.trials == ()
    assert tt.launch_trials(study, batch).states == {}
    assert tt.evaluate_and_prune(study, batch).done
    assert story(study.url) == told


def test_a_driver_that_was_taken_over_stops_and_harms_nothing(study: tt.Study) -> None:
    batch = tt.sample(study)

    def take_over(_: object) -> None:
        other = tt.open_study(study.url)
        if other.state.epoch == 1:
            opened = Opened(epoch=2, owner="another", time=0.0)
            assert other.log.commit([opened], role="driver", epoch=2)

    with pytest.raises(Fenced, match="newer driver"):
        tt.launch_trials(study, batch, on_change=take_over)
    after = [event for event in events(study.url) if event.type not in {"created", "planned"}]
    last = max(index for index, event in enumerate(after) if event.type == "opened")
    assert after[last + 1 :] == []
    assert tt.launch_trials(study, batch).states


def test_streaming_runs_the_whole_study_in_one_launch(tmp_path: Path) -> None:
    spec = write_study(tmp_path, execution={"runner": "inline", "flow": "streaming"})
    study = tt.open_study(spec)
    batch = tt.sample(study)
    tt.launch_trials(study, batch)
    assert tt.evaluate_and_prune(study, batch).done
    assert len(study.trials) == 9
    assert study.state.count("pruned", "completed") == 9


def test_an_objective_that_fails_is_data_and_not_an_exception(tmp_path: Path) -> None:
    spec = write_study(tmp_path, objective="objective:broken", retry={"failures": 1})
    with (tmp_path / "objective.py").open("a") as file:
        file.write("\ndef broken(config):\n    raise RuntimeError('no data on this machine')\n")
    study = tt.tune(spec)
    assert study.state.count("failed") == 9
    assert all(trial.attempts == 2 for trial in study.trials)
    assert "no data on this machine" in (study.trials[0].error or "")
    with pytest.raises(tt.NothingToPromote):
        tt.promote_best(study)


def test_a_metric_that_is_never_reported_stops_the_launch_and_is_named(tmp_path: Path) -> None:
    study = tt.open_study(write_study(tmp_path, metric="los"))
    with pytest.raises(ConfigError, match=r"metric: .*'los'.*'loss', 'weight'.*Did you mean 'loss'"):
        tt.launch_trials(study, tt.sample(study))


def test_a_study_as_a_frame_has_a_row_for_each_trial(study: tt.Study) -> None:
    frame = tt.tune(study).to_frame()
    assert list(frame["trial"]) == list(range(9))
    assert list(frame["params.x"]) == [trial.params["x"] for trial in study.trials]
    assert list(frame["value"]) == [trial.value for trial in study.trials]


def test_the_step_table_speaks_json(study: tt.Study) -> None:
    batch = perform("sample", study.url)
    outcome = perform("launch_trials", study.url, batch=batch["batch"])
    verdict = perform("evaluate_and_prune", study.url, batch=batch["batch"])
    for result in (batch, outcome, verdict):
        assert json.loads(json.dumps(result)) == result
        assert result["study"] == study.url
    assert {"sample", "launch_trials", "evaluate_and_prune", "promote_best", "deploy", "undeploy"} <= set(STEPS)
    assert {"train_final", "extend"} <= set(STEPS)


@pytest.mark.parametrize("run", ["..", "a/b", "", "a\0b"])
def test_a_run_name_that_is_no_name_is_refused(study: tt.Study, run: str) -> None:
    with pytest.raises(ConfigError, match="run:"):
        tt.sample(study, run=run)


def test_without_a_registry_a_model_is_promoted_once_and_another_run_finds_it_in_its_place(study: tt.Study) -> None:
    tt.tune(study)
    first = tt.promote_best(study, run="monday")
    again = tt.promote_best(study, run="tuesday")
    assert first.promoted
    assert not again.promoted
    assert "it is the same" in again.reason
    assert tt.promote_best(study, run="monday") == first


def test_a_batch_that_was_never_sampled_is_refused(study: tt.Study) -> None:
    tt.sample(study)
    with pytest.raises(ConfigError, match=r"batch: 'main-000' is not allowed.*Did you mean 'main-0000'"):
        tt.launch_trials(study, "main-000")
