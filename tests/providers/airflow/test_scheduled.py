"""The first task of a schedule: which run it begins or goes on with, and what is skipped with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

import tune_tasks as tt
from tests.airflow_home import run
from tests.studies import SPEC, write_study
from tune_tasks.spec import check_name
from tune_tasks_airflow.scheduled import RetrainOperator, name_of

MONDAY, TUESDAY, WEDNESDAY = (datetime(2026, 11, day, tzinfo=UTC) for day in (2, 3, 4))


def dag_run(date: datetime | None, run_id: str = "scheduled__1") -> Any:
    return SimpleNamespace(logical_date=date, run_after=TUESDAY, run_id=run_id)


def begin(date: datetime | None, **fields: Any) -> dict[str, Any]:
    """Executes the operator on its own."""
    context: Any = {"dag": SimpleNamespace(dag_id="by_hand"), "dag_run": dag_run(date)}
    result: dict[str, Any] = RetrainOperator(task_id="begin", **fields).execute(context)
    return result


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return write_study(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "studies"


@pytest.mark.parametrize(
    ("moment", "name"),
    [
        (MONDAY, "2026-11-02"),
        (datetime(2026, 11, 2, 6, 30, tzinfo=UTC), "2026-11-02T063000"),
        (datetime(2026, 11, 2, 0, 0, 0, 7, tzinfo=UTC), "2026-11-02T000000.000007"),
        (datetime(2026, 11, 2, 2, tzinfo=timezone(timedelta(hours=2))), "2026-11-02"),
    ],
)
def test_a_run_is_named_after_its_logical_date(moment, name):
    assert name_of(dag_run(moment)) == check_name(name)


def test_runs_without_a_logical_date_are_kept_apart_and_named_the_same_at_every_try():
    names = [name_of(dag_run(None, run_id)) for run_id in ("asset_triggered__1", "asset_triggered__2")]
    assert len(set(names)) == 2
    assert all(check_name(name).startswith("2026-11-03T000000-") for name in names)
    assert name_of(dag_run(None, "asset_triggered__1")) == names[0]


def test_the_first_run_begins_afresh_and_a_further_try_goes_on_with_its_study(spec, store):
    first = begin(MONDAY, study=spec, data="monday")
    assert first == {
        "study": str(store / "small-2026-11-02"),
        "series": "small",
        "run": "2026-11-02",
        "reason": "begins afresh: there is no earlier run to learn from",
        "previous": None,
        "skipped": False,
    }
    again = begin(MONDAY, study=spec, data="monday")
    assert again == {**first, "reason": "goes on: it was begun already"}
    assert tt.open_study(first["study"]).spec.data == "monday"


def test_overrides_change_the_spec_and_a_run_may_have_another_name(spec, store):
    begun = begin(MONDAY, study=str(spec), run="friday", overrides='{"budget.trials": 3, "name": "few"}')
    assert begun["study"] == str(store / "few-friday")
    assert tt.open_study(begun["study"]).spec.budget.trials == 3


def test_a_spec_may_be_a_mapping(tmp_path, store, monkeypatch):
    write_study(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert begin(MONDAY, study={**SPEC, "store": str(store)})["study"] == str(store / "small-2026-11-02")


def test_the_digest_of_files_is_recorded_so_that_other_files_are_other_data(spec, tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("1,2\n")
    first = begin(MONDAY, study=spec, data=str(rows))
    recorded = tt.open_study(first["study"]).spec.data
    assert recorded == f"{rows}#{tt.fingerprint(str(rows))}"
    rows.write_text("1,3\n")
    with pytest.raises(AirflowFailException, match=r"data: .* is not allowed; run 2026-11-02 of small was begun with"):
        begin(MONDAY, study=spec, data=str(rows))


def test_a_run_with_the_data_of_the_last_one_is_skipped_with_the_reason(spec):
    begin(MONDAY, study=spec, data="monday")
    with pytest.raises(AirflowSkipException, match="small: the data is 'monday' still, as in run 2026-11-02"):
        begin(TUESDAY, study=spec, data="monday")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"study": "s3://bucket/studies/small"}, "study: 's3://bucket/studies/small' is not allowed; a run of a sched"),
        ({"run": "../up"}, "run: 'small-../up' is not a name"),
        ({"overrides": "trials=3"}, "overrides: 'trials=3' is not allowed"),
    ],
)
def test_bad_input_is_refused_with_a_clear_message(spec, fields, message):
    with pytest.raises(AirflowFailException, match=message):
        begin(MONDAY, **{"study": spec, **fields})


def test_where_a_run_is_skipped_nothing_that_follows_runs(spec, store):
    first = run("tests", "nightly", {"spec": str(spec), "data": "monday"}, MONDAY)
    assert first.result("tune.promote_best")["promoted"] is True
    second = run("tests", "nightly", {"spec": str(spec), "data": "monday"}, TUESDAY)
    assert set(second.states.values()) == {"skipped"}
    told = second.result("begin")
    assert (told["skipped"], told["study"], told["previous"]) == (True, None, None)
    assert "the data is 'monday' still" in told["reason"]
    assert sorted(path.name for path in store.iterdir() if path.name.startswith("small")) == ["small-2026-11-02"]


def test_the_next_run_begins_with_the_best_of_the_last_one(spec):
    first = run("tests", "nightly", {"spec": str(spec), "data": "monday"}, MONDAY).result("begin")
    second = run("tests", "nightly", {"spec": str(spec), "data": "wednesday"}, WEDNESDAY).result("begin")
    assert second["previous"] == first["study"]
    assert second["reason"] == "begins with 5 configurations of small-2026-11-02"
    trials = tt.open_study(second["study"]).trials
    assert [trial.reason.startswith("from trial") for trial in trials] == [True] * 5 + [False] * 4
