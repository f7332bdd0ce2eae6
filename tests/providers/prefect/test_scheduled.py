"""How the runs of a schedule are called, which are too late, and who is the champion."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

import tune_tasks as tt
from tests.prefect_server import PrefectServer, shared
from tests.studies import SPEC, write_study
from tune_tasks_prefect.scheduled import champion, is_late, retrain, run_name, scheduled_for

pytestmark = pytest.mark.prefect

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def server() -> Iterator[PrefectServer]:
    running = shared()
    with temporary_settings({PREFECT_API_URL: running.api, PREFECT_HOME: running.home}):
        yield running


def in_a_flow(ask: Callable[[], Any], **changes: Any) -> Any:
    """What is so in a flow run; `changes` make it another one."""

    @flow
    def asking() -> Any:
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        with context.model_copy(update={"flow_run": context.flow_run.model_copy(update=changes)}):
            return ask()

    return asking()


@pytest.mark.parametrize(
    ("moment", "name"),
    [
        (datetime(2026, 11, 22, tzinfo=UTC), "2026-11-22"),
        (datetime(2026, 11, 22, 6, 30, tzinfo=UTC), "2026-11-22T063000"),
        (datetime(2026, 11, 22, 1, tzinfo=UTC).astimezone(), "2026-11-22T010000"),
    ],
)
def test_a_run_of_the_schedule_is_called_after_its_day_and_its_time_where_that_is_not_midnight(
    server: PrefectServer, moment: datetime, name: str
) -> None:
    assert in_a_flow(run_name, auto_scheduled=True, expected_start_time=moment) == name


def test_a_run_that_someone_began_has_a_name_of_its_own_and_the_same_whenever_it_is_asked(
    server: PrefectServer,
) -> None:
    twice = in_a_flow(lambda: (run_name(), run_name()))
    assert twice[0] == twice[1] != in_a_flow(run_name)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d{6}-[0-9a-f]{8}", twice[0])


def test_outside_a_flow_run_there_is_no_such_name() -> None:
    for ask in (run_name, scheduled_for, lambda: is_late(DAY)):
        with pytest.raises(tt.ConfigError, match="outside a flow run"):
            ask()


def test_a_run_is_late_where_it_begins_long_after_its_time_unless_it_is_run_again(server: PrefectServer) -> None:
    def late(**changes: Any) -> bool:
        return bool(in_a_flow(lambda: is_late(DAY), **changes))

    old = datetime.now(UTC) - 2 * DAY
    assert late(auto_scheduled=True, expected_start_time=old, run_count=1)
    assert not late(auto_scheduled=True, expected_start_time=old, run_count=2)  # it was suspended for two days, say
    assert not late(auto_scheduled=True, expected_start_time=datetime.now(UTC), run_count=1)
    assert not late(expected_start_time=old, run_count=1)


def test_the_champion_is_told_with_the_study_that_it_comes_from_and_how_it_was_trained(
    server: PrefectServer, tmp_path: Path
) -> None:
    spec = write_study(tmp_path, promotion={"registry": "none", "model": "digits"})

    def told() -> dict[str, Any]:
        return dict(in_a_flow(lambda: champion(str(spec))))

    nobody = {"model": "digits", "alias": "champion", "version": None, "study": None, "trained": None}
    assert told() == nobody
    study = tt.tune(spec)
    tt.promote_best(study)
    assert told() == {**nobody, "version": "1", "study": study.url, "trained": "search"}


def test_a_run_of_a_schedule_is_made_from_a_spec_and_belongs_to_its_pipeline(
    server: PrefectServer, tmp_path: Path
) -> None:
    spec = str(write_study(tmp_path))

    def begun(source: Any = spec, **given: Any) -> Any:
        return in_a_flow(lambda: retrain(source, **given))

    monday = begun(run="monday", data="v1", overrides={"budget.trials": 2}, pipeline="prefect/a")
    assert monday["study"] == f"{tmp_path}/studies/small-monday"
    assert tt.open_study(monday["study"]).spec.budget.trials == 2
    assert begun(run="monday", data="v1", overrides={"budget.trials": 2}, pipeline="prefect/a")["skipped"] is False
    with pytest.raises(tt.ConfigError, match="prefect/a"):
        begun(run="tuesday", data="v2", pipeline="prefect/b")
    with pytest.raises(tt.ConfigError, match="made from a spec"):
        begun(monday["study"], run="tuesday")
    assert SPEC["name"] == monday["series"]
