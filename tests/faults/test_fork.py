"""A process that used the store and forks, as Airflow's local executor does: parent and child both go on."""

from __future__ import annotations

import multiprocessing
import time
from functools import partial
from pathlib import Path

import pytest

import tune_tasks as tt
from tests.faults.studies import count_on, sampled, spec_for, steps
from tune_tasks.store.aside import Background
from tune_tasks.studies import Study

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def _launch(study: Study, batch: str) -> None:
    tt.launch_trials(study, batch)
    tt.evaluate_and_prune(study, batch)


def _in_a_child(study: Study, batch: str) -> None:
    child = multiprocessing.get_context("fork").Process(target=_launch, args=(study, batch))
    child.start()
    child.join(60)
    if child.exitcode is None:
        child.kill()
    assert child.exitcode == 0


def _goes_on_in_parent_and_child(store: str) -> None:
    spec = spec_for(
        partial(count_on, before=lambda *_: None),
        store,
        execution={"runner": "inline", "batch": 2},
        budget={"trials": 6},
    )
    study = tt.open_study(spec)
    first = tt.sample(study)
    _in_a_child(study, first.id)
    second = tt.sample(study)
    assert second.id != first.id
    _launch(study, second.id)
    third = tt.sample(study)
    _in_a_child(study, third.id)
    assert study.refresh().done
    assert sampled(study.url) == list(range(6))
    assert set(steps(study.url).values()) == {1}


def test_parent_and_child_go_on_with_a_study_on_this_disk(tmp_path: Path) -> None:
    _goes_on_in_parent_and_child(str(tmp_path))


def _work_aside(aside: Background) -> None:
    for _ in range(3):
        done: list[int] = []
        aside.put(lambda done=done: done.append(1))
        aside.settle()
        assert done == [1]
        time.sleep(0.05)  # now its thread waits for the next job


def test_what_was_done_aside_before_the_fork_is_done_aside_in_parent_and_child() -> None:
    """The queue of the parent may wake a thread that the child does not have, and let the child's own one sleep."""
    aside = Background()
    _work_aside(aside)
    child = multiprocessing.get_context("fork").Process(target=_work_aside, args=(aside,))
    child.start()
    child.join(10)
    if child.exitcode is None:
        child.kill()
    assert child.exitcode == 0
    _work_aside(aside)


@pytest.mark.s3
def test_parent_and_child_go_on_with_a_study_in_a_bucket(s3: str) -> None:
    _goes_on_in_parent_and_child(s3)
