"""A study moves into a database and back, and is verified, swept and exported there as anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Missing
from tests.servers.postgres import PostgresServer, serve
from tune_tasks.operate import check_study, copy_study, export_study, sweep_study
from tune_tasks.store import open_objects


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    try:
        with serve() as started:
            yield started
    except Missing as missing:
        pytest.skip(str(missing))


def test_a_study_moves_into_a_database_and_back(
    server: PostgresServer, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    for name, value in {**server.environment, "PGPASSFILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    url, back = server.place(), tmp_path / "back" / "small"
    copy_study(study, url)
    assert check_study(url).findings == ()
    objects = open_objects(url)
    objects.create("probe/0123456789abcdef0123456789abcdef", b"x")
    assert (sweep_study(url).removals, sweep_study(url).younger) == ((), 1)
    assert [removal.kind for removal in sweep_study(url, grace=0).removals] == ["probe"]
    assert export_study(url, tmp_path / "tables", form="csv").segments == len(objects.list("log/"))
    copy_study(url, back)
    log = {path.name: path.read_bytes() for path in (study / "log").iterdir()}
    assert {path.name: path.read_bytes() for path in (back / "log").iterdir()} == log
    assert check_study(back).findings == ()
