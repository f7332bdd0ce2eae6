"""The driver of a job: it serves one launch step after another, and what runs goes on between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.execution.puppet import Puppet, over, steadily
from tests.studies import events, write_study
from tune_tasks.errors import Fenced
from tune_tasks.events import Judged, Opened, Prune, Requested
from tune_tasks.execution import Message, TrialTask
from tune_tasks.execution.serving import JobDriver
from tune_tasks.steps import make_decider
from tune_tasks.studies import Study, append


@pytest.fixture
def open_one(tmp_path: Path) -> Callable[..., Study]:
    """A study of six trials, two at once, in batches of three."""

    def open_one(**changes: Any) -> Study:
        execution = {"runner": "job", "batch": 3, "linger": 5, **changes.pop("execution", {})}
        spec = {"budget": {"trials": 6, "concurrency": 2}, "scheduler": {"name": "none", "max_budget": 3}, **changes}
        return tt.open_study(write_study(tmp_path, execution=execution, **spec))

    return open_one


def ask(study: Study, batch: str) -> None:
    """What a launch step asks for."""
    append(study, lambda _: Requested(batch=batch, job=1, time=study.now()))


def driver_of(study: Study, puppet: Puppet) -> JobDriver:
    mine = tt.open_study(study.url)
    return JobDriver(mine.log, mine.state, puppet, make_decider(mine), owner="job", clock=puppet.clock)


class Steps:
    """Plays the pipeline beside the driver, in the driver's own time: the next round when a launch step has ended."""

    def __init__(self, study: Study, puppet: Puppet) -> None:
        self.study, self.puppet, self.outcomes = study, puppet, list[Any]()
        study.clock = puppet.clock
        self._wait = puppet.wait
        puppet.wait = self.wait  # type: ignore[method-assign]
        self.batch = tt.sample(study)
        ask(study, self.batch.id)

    def wait(self, timeout: float) -> None:
        self._wait(timeout)
        if not self.study.state.done and f"{self.batch.id}/launch" in self.study.refresh().steps:
            self.outcomes.append(tt.launch_trials(self.study, self.batch))
            tt.evaluate_and_prune(self.study, self.batch)
            if not self.study.state.done:
                self.batch = tt.sample(self.study)
                ask(self.study, self.batch.id)


def test_rounds_follow_each_other_while_a_straggler_runs_on(open_one: Callable[..., Study]) -> None:
    study, puppet = open_one(), Puppet(steadily(lambda trial: 10.0 if trial == 0 else 1.0))
    steps = Steps(study, puppet)
    state = driver_of(study, puppet).serve()
    assert state.done
    assert steps.outcomes[0].states == {"completed": 2, "running": 1}
    assert steps.outcomes[0].reason == "a worker was free for the next step; 1 of its trials and earlier ones go on"
    assert [trial.attempts for trial in state.trials] == [1] * 6
    assert puppet.asked == [], "nothing was told to pause"
    assert sum(isinstance(event, Opened) for event in events(study.url)) == 1
    assert max(moment for moment, _ in puppet.handed) < 30.0, "all others ran beside the straggler"


def test_the_study_is_done_only_when_the_straggler_is(open_one: Callable[..., Study]) -> None:
    study, puppet = open_one(), Puppet(steadily(lambda trial: 30.0 if trial == 0 else 1.0))
    Steps(study, puppet)
    state = driver_of(study, puppet).serve()
    assert [trial.budget for trial in state.trials] == [3] * 6
    assert state.trials[0].state == "completed"


def test_the_time_of_every_round_counts_as_time_of_the_study(open_one: Callable[..., Study]) -> None:
    study, puppet = open_one(), Puppet(steadily(lambda _: 5.0))
    Steps(study, puppet)
    state = driver_of(study, puppet).serve()
    assert state.elapsed == pytest.approx(45.0, abs=5.0)


def test_it_ends_when_nothing_was_asked_for_long_enough(open_one: Callable[..., Study]) -> None:
    study, puppet = open_one(), Puppet(steadily(lambda _: 1.0))
    ask(study, tt.sample(study).id)
    state = driver_of(study, puppet).serve()
    assert state.count("completed") == 3
    assert puppet.now == pytest.approx(1000 + 6 + 5, abs=1.5)
    assert not state.done


def test_a_batch_that_no_launch_step_asked_for_is_not_run(open_one: Callable[..., Study]) -> None:
    study, puppet = open_one(), Puppet(steadily(lambda _: 1.0))
    tt.sample(study)
    assert driver_of(study, puppet).serve().count("queued") == 3
    assert puppet.handed == []


def test_a_trial_that_a_step_prunes_while_it_runs_is_told_to_stop(open_one: Callable[..., Study]) -> None:
    study, puppet = open_one(), Puppet(steadily(lambda _: 10.0))
    batch = tt.sample(study)
    ask(study, batch.id)
    puppet.at[5.0] = lambda: append(
        study,
        lambda _: Judged(
            key="by-hand", batch=batch.id, advances=(), prunes=(Prune(trial=0, reason="by hand"),),
            done=False, best=None, value=None, reason="one pruned", time=puppet.now,
        ),
    )  # fmt: skip
    state = driver_of(study, puppet).serve()
    assert (0, False) in puppet.asked
    assert (state.trials[0].state, state.trials[0].why, state.trials[0].budget) == ("pruned", "by hand", 0)


def test_a_streaming_study_runs_to_its_end_in_one_launch_step(open_one: Callable[..., Study]) -> None:
    study, puppet = open_one(execution={"flow": "streaming"}), Puppet(steadily(lambda _: 1.0))
    steps = Steps(study, puppet)
    assert driver_of(study, puppet).serve().done
    assert len(steps.outcomes) == 1
    assert steps.outcomes[0].states == {"completed": 6}


def test_a_newer_driver_ends_it_for_good(open_one: Callable[..., Study]) -> None:
    study, puppet = open_one(), Puppet(steadily(lambda _: 100.0))
    ask(study, tt.sample(study).id)

    def take_over() -> None:
        newer = tt.open_study(study.url)
        opened = Opened(epoch=newer.state.epoch + 1, owner="newer", time=puppet.now)
        assert newer.log.commit([opened], role="driver", epoch=opened.epoch)

    puppet.at[5.0] = take_over
    with pytest.raises(Fenced, match="a newer driver"):
        driver_of(study, puppet).serve()
    assert puppet.now < 1010, "it looks into the log also while its trials say nothing"


def test_a_step_in_a_job_ends_after_its_time_and_its_trials_run_on(open_one: Callable[..., Study]) -> None:
    study, puppet = open_one(execution={"step_time": 4}), Puppet(steadily(lambda _: 3.0))
    steps = Steps(study, puppet)
    state = driver_of(study, puppet).serve()
    assert state.done
    assert "the step has run for 4 s" in steps.outcomes[0].reason
    assert puppet.asked == []
    assert [trial.attempts for trial in state.trials] == [1] * 6


def test_the_next_driver_knows_the_nodes_that_failed(open_one: Callable[..., Study]) -> None:
    def play(task: TrialTask) -> list[tuple[float, Message]]:
        bad = task.attempt == 1
        story = steadily(lambda _: 1.0, lambda _: "bad" if bad else "good")(task)
        return [story[0], (0.5, over(task, "lost", "gone"))] if bad else story

    study, first, second = open_one(retry={"node": 3}), Puppet(play), Puppet(play)
    ask(study, tt.sample(study).id)
    driver_of(study, first).serve()
    assert first.avoided == ("bad",)
    driver_of(study, second).serve()
    assert second.avoided == ("bad",)
