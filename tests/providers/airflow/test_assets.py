"""The event of a promotion: who hears of a new champion, and what it says; and that the others do not hear of none."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.airflow_home import Run, run
from tests.studies import write_study
from tune_tasks_airflow.operators import ASSET_EXTRA

FIRST, SECOND, THIRD = (datetime(2025, 11, day, tzinfo=UTC) for day in (1, 2, 3))
"""Days of this file alone: what a DAG run of another test told would count as told."""


def told(done: Run) -> dict[str, dict[str, Any]]:
    """The events of a DAG run: what each asset was told, by its address."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        rows = session.scalars(select(AssetEvent).where(AssetEvent.source_run_id == done.id))
        return {row.asset.uri: row.extra for row in rows}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    target = {"name": "folder", "url": str(tmp_path / "served")}
    return write_study(tmp_path, deploy={"target": target}, retrain={"skip_unchanged": False})


def test_a_promotion_tells_the_alias_and_the_asset_of_the_new_champion(spec):
    done = run("tests", "nightly", {"spec": str(spec)}, FIRST)
    model = done.result("approval.promote_best")
    events = told(done)
    assert set(events) == {"models:/small@champion", "small-plain"}
    for extra in events.values():
        assert {name: extra[name] for name in ASSET_EXTRA} == {name: model[name] for name in ASSET_EXTRA}
    assert events["small-plain"]["study"].endswith("small-2025-11-01")


def test_where_the_champion_stays_the_alias_hears_nothing_and_the_asset_no_details(spec):
    run("tests", "nightly", {"spec": str(spec)}, SECOND)
    overrides = {"promotion.min_improvement": 10.0}
    done = run("tests", "nightly", {"spec": str(spec), "data": "new", "overrides": overrides}, THIRD)
    assert done.result("approval.promote_best")["promoted"] is False
    events = told(done)
    assert set(events) == {"small-plain"}
    assert "version" not in (events["small-plain"] or {})
