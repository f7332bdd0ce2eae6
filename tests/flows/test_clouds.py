"""The flow `tune` on Azure's and Google's stores, by real servers of both, with what a block says of them alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

import tune_tasks_prefect as provider
from tests.conftest import FOREIGN
from tests.prefect_server import shared
from tests.studies import write_study
from tune_tasks.store.credentials import using
from tune_tasks.studies import open_study
from tune_tasks_prefect.blocks import StudyStore, variables

pytestmark = pytest.mark.prefect


@pytest.fixture(params=["azurite_server", "google_server"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StudyStore:
    """A store of one of the clouds, of which the environment says only where its stand-in listens."""
    server: Any = request.getfixturevalue(request.param)
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        monkeypatch.delenv(name)
    fields = {"url": server.place()}
    for name, value in server.environment.items():
        if name.startswith("AZURE_STORAGE_"):
            fields[f"azure_{name.removeprefix('AZURE_STORAGE_').lower()}"] = value
        else:
            monkeypatch.setenv(name, value)
    return StudyStore(**fields)


def test_a_flow_carries_a_study_on_where_a_block_says(block: StudyStore, tmp_path: Path) -> None:
    name = f"b{uuid4().hex[:8]}"
    spec = str(write_study(tmp_path, budget={"trials": 2}))
    with temporary_settings({PREFECT_API_URL: shared().api}):
        block.save(name)
        assert provider.tune(spec, store=name, promote=False)["done"]
        with using(variables(name)):
            study = open_study(f"{block.url}/small")
    assert [trial.number for trial in study.trials] == [0, 1]
    assert not {variable for variable in os.environ if variable.startswith("AZURE_")}
