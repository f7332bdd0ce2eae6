"""The driver of one launch step: when it ends, what it does with what runs then, and the limits that it heeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.execution.puppet import Puppet, over, steadily
from tests.studies import write_study
from tune_tasks.errors import ConfigError
from tune_tasks.execution import Began, Message, TrialTask, losses
from tune_tasks.execution.batch import BatchDriver
from tune_tasks.steps import make_decider
from tune_tasks.study import StudyState


@pytest.fixture
def drive(tmp_path: Path) -> Callable[..., StudyState]:
    """Runs the first batch of a study of four trials on a puppet, as the spec says."""

    def drive(puppet: Puppet, *, trials: int = 4, **changes: Any) -> StudyState:
        budget = {"trials": trials, "concurrency": 2, **changes.pop("budget", {})}
        execution = {"runner": "inline", "batch": trials, **changes.pop("execution", {})}
        changes = {"scheduler": {"name": "none", "max_budget": 3}, **changes}
        study = tt.open_study(write_study(tmp_path, budget=budget, execution=execution, **changes))
        study.clock = puppet.clock
        tt.sample(study)
        decider = make_decider(study, "main-0000")
        driver = BatchDriver(study.log, study.state, puppet, decider, owner="test", clock=puppet.clock)
        return driver.run("main-0000")

    return drive


def test_a_step_ends_when_every_trial_has_run(drive: Callable[..., StudyState]) -> None:
    state = drive(Puppet(steadily(lambda _: 1.0)))
    assert state.steps["main-0000/launch"]["states"] == {"completed": 4}
    assert state.steps["main-0000/launch"]["reason"] == "every trial has run"
    assert [round(trial.seconds) for trial in state.trials] == [3, 3, 3, 3]


def test_a_round_may_end_with_enough_results_and_leaves_the_others_for_the_next(
    drive: Callable[..., StudyState],
) -> None:
    puppet = Puppet(steadily(lambda trial: 100.0 if trial == 0 else 1.0))
    state = drive(puppet, execution={"min_results": 2})
    assert state.steps["main-0000/launch"]["reason"] == "2 trials have their results"
    assert puppet.asked == [(0, True), (3, True)]
    assert [trial.state for trial in state.trials] == ["queued", "completed", "completed", "queued"]


def test_a_step_ends_after_its_time_and_leaves_the_others_for_the_next(drive: Callable[..., StudyState]) -> None:
    puppet = Puppet(steadily(lambda _: 4.0))
    state = drive(puppet, execution={"step_time": 10})
    assert state.steps["main-0000/launch"]["reason"] == "the step has run for 10 s"
    assert puppet.now <= 1000 + 10 + 4 + 1, "each trial ends at its next report"
    assert [trial.state for trial in state.trials] == ["queued"] * 4


def test_the_time_of_a_study_runs_out_though_its_trials_say_nothing(drive: Callable[..., StudyState]) -> None:
    puppet = Puppet(steadily(lambda _: 500.0))
    state = drive(puppet, budget={"wall_time": 100})
    assert puppet.asked[:2] == [(0, False), (1, False)]
    assert puppet.now == pytest.approx(1000 + 500, abs=1), "they are told at once, and end at their first report"
    assert state.steps["main-0000/launch"]["reason"] == "the wall time of 100 s is used up"


def test_a_trial_that_has_had_its_time_is_pruned_with_that_reason(drive: Callable[..., StudyState]) -> None:
    state = drive(Puppet(steadily(lambda trial: 9.0 if trial == 1 else 1.0)), budget={"trial_time": 10})
    assert [trial.state for trial in state.trials] == ["completed", "pruned", "completed", "completed"]
    assert state.trials[1].why == "has run for 10 s, all that budget.trial_time allows"
    assert state.trials[1].budget == 1, "what it reports after that does not count"


def test_the_time_of_a_trial_is_that_of_all_its_attempts(drive: Callable[..., StudyState]) -> None:
    """Each attempt is lost after six seconds and starts over: the second one is ended four seconds in."""

    def play(task: TrialTask) -> list[tuple[float, Message]]:
        began = Began(task.trial, task.attempt, 0, "puppet", 0.0)
        return [(0.0, began), (6.0, over(task, "lost", "gone"))]

    puppet = Puppet(play, slots=1)
    state = drive(puppet, trials=1, budget={"trial_time": 10})
    assert (state.trials[0].state, state.trials[0].attempts) == ("pruned", 2)
    assert state.trials[0].seconds == pytest.approx(12.0)


def test_a_trial_that_reports_nothing_for_too_long_fails_with_that_reason(drive: Callable[..., StudyState]) -> None:
    def play(task: TrialTask) -> list[tuple[float, Message]]:
        if task.trial != 1:
            return steadily(lambda _: 4.0)(task)
        puppet.at[7.0] = lambda: puppet.give_up(1)
        return [(0.0, Began(1, task.attempt, 0, "puppet", 0.0))]

    puppet = Puppet(play)
    state = drive(puppet, execution={"report_time": 5})
    assert puppet.asked == [(1, False)], "it is told once, and the others never"
    assert [trial.state for trial in state.trials] == ["completed", "failed", "completed", "completed"]
    assert state.trials[1].error == "no report came for 5 s; execution.report_time allows 5 s"
    assert (state.trials[1].failures, state.trials[1].losses) == (1, 0)


def test_a_node_that_loses_one_trial_after_another_is_avoided_and_named(drive: Callable[..., StudyState]) -> None:
    def play(task: TrialTask) -> list[tuple[float, Message]]:
        bad = task.trial < 3 and task.attempt == 1
        story = steadily(lambda _: 1.0, lambda _: "bad" if bad else "good")(task)
        return [story[0], (0.5, over(task, "lost", "gone"))] if bad else story

    puppet = Puppet(play)
    state = drive(puppet, retry={"node": 3})
    assert puppet.avoided == ("bad",)
    assert state.steps["main-0000/launch"]["avoided"] == ["bad"]
    assert [trial.losses for trial in state.trials] == [1, 1, 1, 0]
    assert [trial.state for trial in state.trials] == ["completed"] * 4


def test_trials_whose_gangs_lost_a_node_do_not_bring_their_own_into_disrepute(drive: Callable[..., StudyState]) -> None:
    def play(task: TrialTask) -> list[tuple[float, Message]]:
        story = steadily(lambda _: 1.0, lambda _: "good")(task)
        lost = over(task, "lost", "node bad of its gang was lost")._replace(node="bad")
        return [story[0], (0.5, lost)] if task.trial < 3 and task.attempt == 1 else story

    puppet = Puppet(play)
    state = drive(puppet, retry={"node": 3})
    assert puppet.avoided == ("bad",)
    assert [trial.losses for trial in state.trials] == [1, 1, 1, 0]


@pytest.mark.parametrize(("failures", "state"), [(0, "failed"), (1, "completed")])
def test_a_trial_that_runs_out_of_memory_twice_in_a_row_has_failed(
    drive: Callable[..., StudyState], failures: int, state: str
) -> None:
    from ray.exceptions import OutOfMemoryError

    full = losses.lost("", losses.why(OutOfMemoryError("1 worker(s) were killed"), None))

    def play(task: TrialTask) -> list[tuple[float, Message]]:
        story = steadily(lambda _: 1.0)(task)
        error = {(1, 1): full, (1, 2): full, (2, 1): full, (2, 2): "gone", (2, 3): full}.get(task[:2])
        return [story[0], (0.5, over(task, "lost", error))] if error else story

    study = drive(Puppet(play), retry={"failures": failures})
    assert [trial.losses for trial in study.trials] == [0, 1, 3, 0]
    assert [trial.failures for trial in study.trials] == [0, 1, 0, 0]
    assert [trial.state for trial in study.trials] == ["completed", state, "completed", "completed"]
    assert "ran out of memory" in str(study.trials[1].error)


def test_a_node_on_which_a_trial_ends_well_in_between_is_not_avoided(drive: Callable[..., StudyState]) -> None:
    def play(task: TrialTask) -> list[tuple[float, Message]]:
        story = steadily(lambda _: 1.0, lambda _: "node")(task)
        bad = task.trial in {0, 1, 3} and task.attempt == 1
        return [story[0], (0.5, over(task, "lost", "gone"))] if bad else story

    puppet = Puppet(play, slots=1)
    state = drive(puppet, retry={"node": 3})
    assert puppet.avoided == ()
    assert state.suspects == {}


def test_a_trial_whose_node_goes_away_goes_on_elsewhere_and_uses_up_no_retry(drive: Callable[..., StudyState]) -> None:
    def play(task: TrialTask) -> list[tuple[float, Message]]:
        story = steadily(lambda _: 1.0)(task)
        return [*story[:2], (1.5, over(task, "moved"))] if task.attempt < 3 else story

    state = drive(Puppet(play), retry={"infrastructure": 0, "failures": 0})
    assert [(t.state, t.attempts, t.losses, t.failures) for t in state.trials] == [("completed", 3, 0, 0)] * 4


def test_an_objective_that_no_worker_can_load_ends_the_study_at_once_with_what_is_missing_and_where(
    drive: Callable[..., StudyState],
) -> None:
    def play(task: TrialTask) -> list[tuple[float, Message]]:
        error = "'objective:train' cannot be loaded on node:7: ModuleNotFoundError: No module named 'torch'"
        return [
            (0.0, Began(task.trial, 1, 0, "puppet", 0.0)),
            (0.1, over(task, "failed", error)._replace(kind="NotShipped")),
        ]

    with pytest.raises(ConfigError, match=r"objective: 'objective:train' cannot be loaded on node:7: .*'torch'"):
        drive(Puppet(play))
