"""A study with a trial of each kind, and all that MLflow tells of it, for the tests of trackers."""

from __future__ import annotations

from collections import deque
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from tests.histories import Story
from tune_tasks.events import CheckpointRef, Ended
from tune_tasks.spec import StudySpec
from tune_tasks.study import StudyState
from tune_tasks.tracking import Tracker

URL = "/somewhere/studies/tracked"
CHECKPOINT = CheckpointRef(key="ckpt/000003/000003/1-abc", digest="1", size=3)


def bring(tracker: Tracker, state: StudyState) -> None:
    """Lets a tracker do all that there is to do."""
    deque(tracker.update(state, URL), maxlen=0)


def spec(**changes: Any) -> StudySpec:
    given = {
        "name": "tracked",
        "objective": "objective:train",
        "metric": "loss",
        "mode": "min",
        "space": {
            "x": {"type": "float", "low": 0.0, "high": 1.0},
            "kind": {"type": "categorical", "choices": ["a", "b"]},
        },
    }
    return StudySpec(**{**given, **changes})


def story() -> Story:
    """One trial of each kind that has begun: completed, pruned, failed, paused and running."""
    history = Story(spec())
    history.open()
    for x in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        history.propose({"x": x, "kind": "a"}, budget=2, last=x == 0.1)
    history.train(0, [{"loss": 0.5, "extra": 1.0}, {"loss": 0.25}])
    history.train(1, [{"loss": 0.9}, {"loss": 0.8}])
    history.give_up(1, "0.8 is not among the best")
    history.train(2, [{"loss": 3.0}], outcome="failed", error="ValueError: no")
    history.train(3, [{"loss": 0.6}, {"loss": 0.7}])
    history.train(4, [{"loss": 0.4}], outcome=None)
    return history


def lose(history: Story, trial: int) -> None:
    attempt = history.state.trials[trial].attempts
    history.apply(Ended(trial=trial, attempt=attempt, outcome="lost", error="gone", retry=True, time=history.time))


def told(uri: str, study: str = "tracked") -> dict[str, Any]:
    """Everything in MLflow about the study, by trial, without MLflow's own ids."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    names = {run.info.run_id: run.info.run_name for run in runs}
    found = {str(run.info.run_name): one(client, run, names) for run in runs}
    assert len(found) == len(runs)
    return found


def one(client: MlflowClient, run: Run, names: dict[str, Any]) -> dict[str, Any]:
    history = {
        name: [
            (metric.step, metric.value, metric.timestamp) for metric in client.get_metric_history(run.info.run_id, name)
        ]
        for name in run.data.metrics
    }
    tags = dict(run.data.tags)
    parent = tags.pop("mlflow.parentRunId", None)
    return {
        "status": run.info.status,
        "start": run.info.start_time,
        "params": run.data.params,
        "metrics": {name: sorted(points) for name, points in history.items()},
        "tags": tags,
        "parent": names[parent] if parent else None,
    }


def ids(client: MlflowClient, study: str = "tracked") -> dict[str, str]:
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    return {str(run.info.run_name): run.info.run_id for run in client.search_runs([experiment.experiment_id])}
