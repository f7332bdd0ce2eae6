"""MLflow shows what the log says: all of it, once, and again after everything there was lost."""

from __future__ import annotations

from collections import deque
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from tests.histories import Story
from tests.mlflow_database import new_database
from tests.tracking.story import CHECKPOINT, URL, bring, ids, lose, spec, story, told
from tune_tasks.errors import Unavailable
from tune_tasks.events import Advance, Checkpointed, Promoted
from tune_tasks.study import StudyState
from tune_tasks.tracking.mlflow import MLflowTracker


def other_folder(uri: str) -> Path:
    folder = Path(uri.removeprefix("sqlite:///")).parent / "other"
    folder.mkdir()
    return folder


def mirror(state: StudyState, uri: str) -> None:
    """Brings MLflow up to date as a process does that knows nothing of what is there."""
    bring(MLflowTracker(uri=uri), state)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return new_database(tmp_path)


def test_each_trial_that_began_is_a_run_below_the_studys_run(uri: str) -> None:
    mirror(story().state, uri)
    runs = told(uri)
    assert set(runs) == {"tracked", "trial 0", "trial 1", "trial 2", "trial 3", "trial 4"}
    assert {run["parent"] for name, run in runs.items() if name != "tracked"} == {"tracked"}
    assert {name: run["status"] for name, run in runs.items()} == {
        "tracked": "RUNNING",
        "trial 0": "FINISHED",
        "trial 1": "KILLED",
        "trial 2": "FAILED",
        "trial 3": "SCHEDULED",
        "trial 4": "RUNNING",
    }
    assert runs["tracked"]["tags"]["tune_tasks.study"] == URL
    assert runs["trial 1"]["tags"]["tune_tasks.why"] == "0.8 is not among the best"
    assert runs["trial 2"]["tags"]["tune_tasks.error"] == "ValueError: no"


def test_the_best_trials_come_first_because_a_promotion_waits_for_no_other(uri: str) -> None:
    deque(islice(MLflowTracker(uri=uri).update(story().state, URL), 3), maxlen=0)
    assert set(told(uri)) == {"tracked", "trial 0", "trial 4"}


def test_params_reports_and_the_best_value_are_there_with_their_steps_and_times(uri: str) -> None:
    state = story().state
    mirror(state, uri)
    run = told(uri)["trial 0"]
    times = [round(report.time * 1000) for report in state.trials[0].reports]
    assert run["params"] == {"x": "0.1", "kind": "a"}
    assert run["metrics"]["loss"] == [(1, 0.5, times[0]), (2, 0.25, times[1])]
    assert run["metrics"]["extra"] == [(1, 1.0, times[0])]
    assert run["metrics"]["best_loss"] == [(1, 0.5, times[0]), (2, 0.25, times[1])]
    assert told(uri)["trial 1"]["metrics"]["best_loss"][-1][1] == 0.8


def test_the_best_value_is_logged_where_it_gets_better_and_nowhere_else(uri: str) -> None:
    history = Story(spec(mode="max"))
    history.open()
    history.propose({"x": 0.1, "kind": "a"})
    history.train(0, [{"loss": value} for value in (0.1, 0.3, 0.2)], outcome=None)
    tracker = MLflowTracker(uri=uri)
    bring(tracker, history.state)
    history.tell(0, [4, 5], [{"loss": 0.2}, {"loss": 0.4}])
    bring(tracker, history.state)
    points = told(uri)["trial 0"]["metrics"]["best_loss"]
    assert [(step, value) for step, value, _ in points] == [(1, 0.1), (2, 0.3), (5, 0.4)]


def test_checkpoints_and_the_model_are_named_and_not_copied(uri: str) -> None:
    history = story()
    history.advance(3, 4, last=True)
    history.train(3, [{"loss": 0.3}], checkpoint=CHECKPOINT)
    history.apply(Promoted(key="k", model={"promoted": True, "uri": "models:/tracked/1"}, time=history.time))
    mirror(history.state, uri)
    runs = told(uri)
    assert runs["trial 3"]["tags"]["tune_tasks.checkpoint"] == f"{URL}/{CHECKPOINT.key}"
    assert runs["trial 3"]["tags"]["tune_tasks.checkpoint_step"] == "3"
    assert runs["trial 0"]["tags"]["tune_tasks.checkpoint"] == ""
    assert runs["tracked"]["tags"]["tune_tasks.model"] == "models:/tracked/1"


def test_mirroring_twice_doubles_nothing_and_writes_nothing(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = story().state
    mirror(state, uri)
    before = told(uri)
    writes: list[str] = []
    for name in ("create_run", "log_batch", "set_terminated", "update_run", "delete_run"):
        monkeypatch.setattr(MlflowClient, name, lambda *_, name=name, **__: writes.append(name))
    mirror(state, uri)
    monkeypatch.undo()
    assert writes == []
    assert told(uri) == before


def test_a_later_call_adds_what_is_new_to_the_same_runs(uri: str) -> None:
    history = story()
    mirror(history.state, uri)
    client = MlflowClient(uri)
    before = ids(client)
    history.advance(3, 4, last=True)
    history.train(3, [{"loss": 0.3}, {"loss": 0.2}])
    history.propose({"x": 0.7, "kind": "b"})
    history.train(6, [{"loss": 1.0}], outcome="returned")
    mirror(history.state, uri)
    assert ids(client).items() >= before.items()
    run = told(uri)["trial 3"]
    assert run["status"] == "FINISHED"
    assert [(step, value) for step, value, _ in run["metrics"]["loss"]] == [(1, 0.6), (2, 0.7), (3, 0.3), (4, 0.2)]
    assert told(uri)["trial 6"]["params"]["kind"] == "b"


@pytest.mark.parametrize("again", [1, 2, 3])
def test_reports_that_were_made_again_after_a_lost_worker_replace_the_old_ones(uri: str, again: int) -> None:
    history = story()
    history.tell(4, [2, 3], [{"loss": 0.35}, {"loss": 0.33}])
    tracker = MLflowTracker(uri=uri)
    bring(tracker, history.state)
    lose(history, 4)
    history.start(4)
    history.tell(4, list(range(2, 2 + again)), [{"loss": 0.36}] * again)
    bring(tracker, history.state)
    points = told(uri)["trial 4"]["metrics"]["loss"]
    assert [value for _, value, _ in points] == [0.4, *[0.36] * again]


def test_a_tracker_that_has_read_less_of_the_log_takes_nothing_back(uri: str) -> None:
    history = story()
    behind = history.state.copy()
    history.tell(4, [2], [{"loss": 0.35}])
    mirror(history.state, uri)
    before = told(uri)["trial 4"]
    mirror(behind, uri)
    assert told(uri)["trial 4"] == before


def test_a_trial_that_goes_on_with_other_parameters_shows_those(uri: str) -> None:
    history = story()
    tracker = MLflowTracker(uri=uri)
    history.apply(Checkpointed(trial=4, attempt=1, step=1, checkpoint=CHECKPOINT, time=history.time))
    bring(tracker, history.state)
    history.decide([Advance(trial=3, budget=4, last=True, reason="copies", donor=4, params={"x": 0.9, "kind": "b"})])
    history.train(3, [{"loss": 0.2}], outcome=None)
    bring(tracker, history.state)
    assert told(uri)["trial 3"]["params"] == {"x": "0.9", "kind": "b"}


def test_deleting_every_run_and_the_experiment_loses_nothing(uri: str) -> None:
    state = story().state
    mirror(state, uri)
    before = told(uri)
    client = MlflowClient(uri)
    for run in ids(client).values():
        client.delete_run(run)
    mirror(state, uri)
    assert told(uri) == before
    experiment = client.get_experiment_by_name("tracked")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    mirror(state, uri)
    assert told(uri) == before


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What MLflow tells of the story when nothing goes wrong."""
    uri = new_database(tmp_path_factory.mktemp("undisturbed"))
    mirror(story().state, uri)
    return told(uri)


@pytest.mark.parametrize("broken", ["create_run", "log_batch", "set_terminated"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", [1, 3])
def test_a_kill_at_any_write_is_made_good_by_the_next_call(
    uri: str, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, broken: str, when: str, call: int
) -> None:
    state = story().state
    real, count = getattr(MlflowClient, broken), [0]

    def killed(self: MlflowClient, *args: Any, **options: Any) -> Any:
        count[0] += 1
        if count[0] < call:
            return real(self, *args, **options)
        if when == "after":
            real(self, *args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(MlflowClient, broken, killed)
    with pytest.raises(KeyboardInterrupt):
        mirror(state, uri)
    monkeypatch.undo()
    mirror(state, uri)
    assert told(uri) == undisturbed


def test_a_long_trial_that_takes_several_calls_is_whole_also_after_a_kill_between_two(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {f"p{index}": {"type": "float", "low": 0.0, "high": 1.0} for index in range(120)}
    history = Story(spec(space=space))
    history.open()
    history.propose(dict.fromkeys(space, 0.5))
    history.train(0, [{"loss": 1.0 / step, "other": float(step)} for step in range(1, 1001)], outcome="returned")
    real, count = SqlAlchemyStore.log_batch, [0]

    def killed(self: SqlAlchemyStore, *args: Any, **options: Any) -> None:
        count[0] += 1
        if count[0] == 4:  # the study's run takes one, the trial's three
            raise KeyboardInterrupt
        real(self, *args, **options)

    monkeypatch.setattr(SqlAlchemyStore, "log_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        mirror(history.state, uri)
    monkeypatch.undo()
    mirror(history.state, uri)
    run = told(uri)["trial 0"]
    assert len(run["params"]) == 120
    assert len(run["metrics"]["loss"]) == len(run["metrics"]["other"]) == 1000


def test_names_and_texts_that_mlflow_refuses_are_made_to_fit(uri: str) -> None:
    history = Story(
        spec(metric="Verlust in % (größer?)", space={"x": {"type": "categorical", "choices": ["y" * 9000, "n"]}})
    )
    history.open()
    history.propose({"x": "y" * 9000})
    history.train(0, [{"Verlust in % (größer?)": 1.0}], outcome="failed", error="E" * 20000)
    mirror(history.state, uri)
    run = told(uri)["trial 0"]
    assert "Verlust in _ _größer__" in run["metrics"]
    assert len(run["params"]["x"]) == 6000


def test_a_server_that_is_down_is_unavailable_and_its_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9") as caught:
        mirror(story().state, "http://someone:secret@127.0.0.1:9")
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_runs_that_were_deleted_while_a_tracker_knew_them_come_back_the_same(uri: str) -> None:
    history = story()
    tracker = MLflowTracker(uri=uri)
    bring(tracker, history.state)
    for run in ids(MlflowClient(uri)).values():
        MlflowClient(uri).delete_run(run)
    history.tell(4, [2], [{"loss": 0.35}])
    bring(tracker, history.state)
    other = new_database(other_folder(uri))
    mirror(history.state, other)
    assert told(uri) == told(other)


def test_two_trackers_that_looked_at_the_same_moment_leave_one_run_for_each_trial(uri: str) -> None:
    state = story().state
    one, two = MLflowTracker(uri=uri).update(state, URL), MLflowTracker(uri=uri).update(state, URL)
    for first, second in zip_longest(one, two):  # each piece of work in turn, both after they had found nothing
        assert first is second is None
    assert set(told(uri)) == {"tracked", *(f"trial {number}" for number in range(5))}
    alone = new_database(other_folder(uri))
    mirror(state, alone)
    assert told(uri) == told(alone)


def test_a_database_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.db import utils

    def killed(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(utils, "_upgrade_db", killed)
        with pytest.raises(KeyboardInterrupt):
            mirror(story().state, f"sqlite:///{tmp_path}/new/mlflow.db")
    assert not (tmp_path / "new" / "mlflow.db").exists()
    mirror(story().state, f"sqlite:///{tmp_path}/new/mlflow.db")
    assert set(told(f"sqlite:///{tmp_path}/new/mlflow.db")) > {"trial 0"}


def test_nothing_is_printed_and_no_run_of_the_user_is_touched(uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    import os

    import mlflow

    before = dict(os.environ)
    mirror(story().state, uri)
    assert mlflow.active_run() is None
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == before


def test_an_empty_study_is_mirrored_too(uri: str) -> None:
    state: StudyState = Story(spec()).state
    mirror(state, uri)
    assert set(told(uri)) == {"tracked"}
