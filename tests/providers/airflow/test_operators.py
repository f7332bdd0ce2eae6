"""The operators: what they take and return, which errors they retry, and what a clear or a kill does to a study."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

import tune_tasks as tt
from tests.airflow_home import run
from tests.studies import SPEC, events, story, write_study
from tune_tasks import errors, steps
from tune_tasks.spec import check_name
from tune_tasks_airflow.launch import LaunchTrialsOperator
from tune_tasks_airflow.operators import EvaluateAndPruneOperator, PromoteBestOperator, SampleOperator, run_name
from tune_tasks_airflow.rounds import tune_rounds

TASKS = SAMPLE, LAUNCH, EVALUATE, PROMOTE = (
    "tune.round_0.sample",
    "tune.round_0.launch_trials",
    "tune.round_0.evaluate_and_prune",
    "tune.promote_best",
)
RUN = "manual__2026-11-02T00:00:00+00:00"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return write_study(tmp_path)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "studies" / "small")


def execute(operator: type, run_id: str = RUN, **fields: Any) -> dict[str, Any]:
    """Executes an operator on its own, as a task of the DAG `by_hand`."""
    context: Any = {"dag": SimpleNamespace(dag_id="by_hand"), "run_id": run_id}
    result: dict[str, Any] = operator(task_id="task", **fields).execute(context)
    return result


def test_a_launch_shows_in_its_log_how_the_study_gets_on(spec, capsys):
    execute(LaunchTrialsOperator, study=spec, batch=execute(SampleOperator, study=spec))
    assert re.search(r"trials 4/9: 4 paused .*best loss", capsys.readouterr().out)


def test_the_four_operators_hand_small_json_from_one_to_the_next(spec, url):
    batch = execute(SampleOperator, study=spec)
    outcome = execute(LaunchTrialsOperator, study=spec, batch=batch)
    verdict = execute(EvaluateAndPruneOperator, study=spec, batch=batch["batch"])
    model = execute(PromoteBestOperator, study=url)
    assert batch == {
        "study": url,
        "batch": f"{run_name('by_hand', RUN)}-0000",
        "run": run_name("by_hand", RUN),
        "round": 0,
        "trials": 4,
        "exhausted": False,
    }
    assert sum(outcome["states"].values()) == 4
    assert isinstance(verdict["advances"], int)
    assert model["promoted"] is True
    for result in (batch, outcome, verdict, model):
        assert result["study"] == url
        assert json.loads(json.dumps(result)) == result


def test_a_study_is_a_path_a_mapping_or_a_url(spec, url, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    mapping = {**SPEC, "store": str(tmp_path / "studies")}
    assert {execute(SampleOperator, study=each)["study"] for each in (str(spec), spec, mapping, url)} == {url}


@pytest.mark.parametrize("overrides", [{"budget.trials": "3"}, '{"budget.trials": 3}'])
def test_overrides_replace_what_the_spec_says(spec, url, overrides):
    assert execute(SampleOperator, study=spec, overrides=overrides, count="7")["trials"] == 3
    assert tt.open_study(url).spec.budget.trials == 3


def test_a_study_is_amended_only_on_request(spec, url):
    execute(SampleOperator, study=spec)
    with pytest.raises(AirflowFailException, match=r"budget.trials is 20 here and 9 in the study"):
        execute(SampleOperator, study=spec, overrides={"budget.trials": 20})
    execute(SampleOperator, study=spec, overrides={"budget.trials": 20}, amend=True)
    assert tt.open_study(url).spec.budget.trials == 20


@pytest.mark.parametrize(
    ("operator", "fields", "message"),
    [
        (SampleOperator, {"round": "first"}, "round: 'first' is not allowed; it must be a whole number"),
        (SampleOperator, {"overrides": "trials=3"}, "overrides: 'trials=3' is not allowed"),
        (SampleOperator, {"overrides": [3]}, r"overrides: \[3\] is not allowed"),
        (SampleOperator, {"overrides": {"bugdet.trials": 3}}, "Did you mean 'budget'"),
        (SampleOperator, {"run": "../up"}, "run: '../up' is not a name"),
        (LaunchTrialsOperator, {"batch": None}, "batch: None is not allowed; give the output of a SampleOperator"),
        (
            EvaluateAndPruneOperator,
            {"batch": {"batch": "main-0000", "study": "s3://elsewhere/other"}},
            "batch: 'main-0000' belongs to s3://elsewhere/other, not to the study",
        ),
    ],
)
def test_bad_input_is_refused_with_a_clear_message(spec, operator, fields, message):
    with pytest.raises(AirflowFailException, match=message):
        execute(operator, study=spec, **fields)


def test_overrides_of_a_study_that_is_there_are_refused(spec, url):
    execute(SampleOperator, study=spec)
    with pytest.raises(AirflowFailException, match="not allowed with a URL"):
        execute(SampleOperator, study=url, overrides={"budget.trials": 3})


@pytest.mark.parametrize("name", ["ConfigError", "CorruptLog", "Fenced", "NothingToPromote", "StudyNotFound"])
def test_an_error_that_no_retry_mends_fails_the_task_at_once(spec, monkeypatch, name):
    monkeypatch.setattr(steps, "perform", failing(getattr(errors, name)("no use"), times=1))
    with pytest.raises(AirflowFailException, match=f"{name}: no use"):
        execute(SampleOperator, study=spec)


def test_a_mistake_in_the_spec_fails_the_run_at_its_first_task_and_try(tmp_path):
    done = run("tests", "once", {"spec": str(write_study(tmp_path, sampler="tpp"))})
    assert done.states == {SAMPLE: "failed"} | dict.fromkeys(TASKS[1:], "upstream_failed")
    assert done.tries(SAMPLE) == 1


@pytest.mark.parametrize("error", [errors.Unavailable("come back later"), OSError("the network is away")])
def test_what_may_pass_is_left_to_the_retries_of_the_task(spec, monkeypatch, error):
    monkeypatch.setattr(steps, "perform", failing(error, times=1))
    done = run("tests", "once", {"spec": str(spec)})
    assert set(done.states.values()) == {"success"}
    assert [done.tries(task) for task in TASKS] == [2, 1, 1, 1]


def test_a_cleared_run_returns_the_same_and_the_next_run_goes_on_with_the_study(spec, url):
    monday, tuesday = datetime(2026, 11, 2, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC)
    first = run("tests", "once", {"spec": str(spec)}, monday)
    assert first.result(EVALUATE)["done"] is False
    told = story(url)

    again = run("tests", "once", {"spec": str(spec)}, monday)
    assert again.id == first.id
    assert [again.result(task) for task in TASKS] == [first.result(task) for task in TASKS]
    assert story(url) == told

    after = run("tests", "once", {"spec": str(spec)}, tuesday)
    assert after.result(SAMPLE)["run"] != first.result(SAMPLE)["run"]
    assert story(url)[: len(told)] == told
    assert len(tt.open_study(url).trials) > 4


def test_a_new_study_is_one_of_the_dag_run_or_of_the_text_that_names_it(spec, url):
    def sampled(new_study, run=RUN):
        return execute(SampleOperator, run, study=spec, new_study=new_study)["study"]

    assert {sampled(off) for off in (False, "", "False", "None")} == {url}
    monday = sampled(True)
    assert monday == sampled("true") == f"{url}-{run_name('by_hand', RUN)[-8:]}"
    assert sampled("True", "tuesday") not in {url, monday}
    assert sampled("again") == f"{url}-again"
    with pytest.raises(AirflowFailException, match="new_study: 'again' is not allowed with a URL"):
        execute(SampleOperator, study=url, new_study="again")


def test_a_run_that_is_cleared_from_its_start_begins_anew_where_a_parameter_asks_for_it(tmp_path):
    conf = {"spec": str(write_study(tmp_path)), "new_study": ""}
    first = run("tests", "anew", conf, datetime(2026, 11, 2, tzinfo=UTC))
    cleared = run("tests", "anew", conf, datetime(2026, 11, 2, tzinfo=UTC))
    assert cleared.result(PROMOTE) == first.result(PROMOTE)
    anew = run("tests", "anew", {**conf, "new_study": "second"}, datetime(2026, 11, 2, tzinfo=UTC))
    assert set(anew.states.values()) <= {"success", "skipped"}
    found = sorted(path.name for path in (tmp_path / "studies").iterdir() if not path.name.startswith("_"))
    assert found == ["small", "small-second"]
    assert story(str(tmp_path / "studies" / "small-second"))


def test_a_promotion_before_the_study_is_done_says_so_in_the_log(spec, capsys):
    run("tests", "once", {"spec": str(spec)})
    assert "is not done, with 4 of 9 trials sampled" in capsys.readouterr().out


def test_a_streaming_study_is_done_after_one_round(tmp_path, url):
    spec = write_study(tmp_path, execution={"runner": "inline", "flow": "streaming"})
    done = run("tests", "once", {"spec": str(spec)})
    assert done.result(EVALUATE)["done"] is True
    assert len(tt.open_study(url).trials) == 9


def test_a_worker_that_is_told_to_go_stops_cleanly_and_the_retry_goes_on(tmp_path, url, monkeypatch):
    monkeypatch.setenv("STEP_SECONDS", "0.05")
    spec = write_study(tmp_path, scheduler={"name": "none", "max_budget": 9}, budget={"trials": 2, "concurrency": 1})
    with terminated_when(lambda: len(list(Path(url).glob("ckpt/*/*/*"))) >= 3):
        done = run("tests", "once", {"spec": str(spec)})
    assert set(done.states.values()) == {"success"}
    assert done.tries(LAUNCH) == 2
    assert [(trial.state, trial.budget) for trial in tt.open_study(url).trials] == [("completed", 9)] * 2
    starts = [(event.trial, event.attempt, event.step > 0) for event in events(url) if event.type == "started"]
    assert starts == [(0, 1, False), (0, 2, True), (1, 1, False)]


@pytest.mark.parametrize(
    ("dag_id", "run_id"),
    [("digits", RUN), ("d" * 250, "r" * 250), (".hidden", "scheduled__~"), ("größe", "ein Lauf/..")],
)
def test_a_run_name_is_a_name_that_leaves_room_for_the_batch(dag_id, run_id):
    assert check_name(run_name(dag_id, run_id)) == run_name(dag_id, run_id)
    check_name(f"{run_name(dag_id, run_id)}-0000")


def test_runs_whose_names_look_alike_are_kept_apart():
    alike = [("a", "b.c"), ("a.b", "c"), ("a", "b+c"), ("a", "b:c"), ("a" * 300, "b"), ("a" * 301, "b")]
    assert len({run_name(*each) for each in alike}) == len(alike)


def test_no_rounds_are_refused_when_the_dag_is_parsed():
    with pytest.raises(ValueError, match="rounds is 0, must be at least 1"):
        tune_rounds("study.yaml", rounds=0)


def failing(error: Exception, times: int) -> Callable[..., Any]:
    """The engine's `perform`, but its first calls raise."""
    perform, left = steps.perform, [error] * times

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if left:
            raise left.pop()
        return perform(*arguments, **options)

    return wrapped


@contextmanager
def terminated_when(ready: Callable[[], bool]) -> Iterator[None]:
    """Sends this process, where Airflow runs the task, the signal of a preemption as soon as `ready`."""
    over, before = threading.Event(), signal.getsignal(signal.SIGTERM)

    def watch() -> None:
        while not over.wait(0.02):
            if ready():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGTERM, before)
