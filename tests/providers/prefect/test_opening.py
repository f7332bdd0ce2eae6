"""What a task makes of the study that it is given, and how little it gives back, against a real Prefect server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

import tune_tasks as tt
import tune_tasks_prefect as provider
from tests.prefect_server import PrefectServer, shared
from tests.studies import write_study

pytestmark = pytest.mark.prefect


@pytest.fixture(scope="module")
def server() -> Iterator[PrefectServer]:
    running = shared()
    with temporary_settings({PREFECT_API_URL: running.api, PREFECT_HOME: running.home}):
        yield running


def test_a_result_is_as_small_for_many_trials_as_for_few(server: PrefectServer, tmp_path: Path) -> None:
    sizes = []
    for name, count in (("few", 2), ("many", 400)):
        objective = {"objective": "objective:once", "scheduler": "none", "budget": {"trials": count, "concurrency": 1}}
        spec = str(write_study(tmp_path / name, **objective))
        batch = provider.sample(spec, count=count)
        assert batch["trials"] == count
        results = [batch, provider.launch_trials(spec, batch), provider.evaluate_and_prune(spec, batch)]
        sizes.append(len(json.dumps(results).replace(str(tmp_path / name), "")))
    assert sizes[1] - sizes[0] < 50


def test_overrides_change_a_spec_and_are_refused_for_a_url(server: PrefectServer, tmp_path: Path) -> None:
    spec = str(write_study(tmp_path))
    batch = provider.sample(spec, overrides={"name": "other", "execution.batch": 2})
    assert batch["study"].endswith("/studies/other")
    assert batch["trials"] == 2
    with pytest.raises(tt.ConfigError, match=r"overrides: .* are not allowed with a URL"):
        provider.sample.with_options(retries=0)(batch["study"], overrides={"name": "third"})


def test_a_study_takes_an_amendment_only_where_it_is_asked_to(server: PrefectServer, tmp_path: Path) -> None:
    spec = str(write_study(tmp_path))
    provider.sample(spec)
    more = {"budget.trials": 12}
    with pytest.raises(tt.ConfigError, match=r"amend=True"):
        provider.sample(spec, overrides=more)
    amended = provider.sample(spec, overrides=more, amend=True)
    assert tt.open_study(amended["study"]).spec.budget.trials == 12


def test_a_batch_of_another_study_is_refused(server: PrefectServer, tmp_path: Path) -> None:
    one, other = (str(write_study(tmp_path / name)) for name in ("one", "other"))
    batch = provider.sample(one)
    provider.sample(other)
    with pytest.raises(tt.ConfigError, match=r"batch: 'main-0000' belongs to .*, not to the study"):
        provider.launch_trials(other, batch)


@pytest.mark.parametrize(
    "study",
    [
        "s3://someone:hushhush@tuning/studies/small",
        {"name": "small", "store": "s3://someone:hushhush@tuning/studies"},
        {"name": "small", "promotion": {"registry": "postgresql://someone:hushhush@server/mlflow"}},
    ],
)
def test_a_url_with_a_key_in_it_is_refused_because_prefect_shows_parameters(server: PrefectServer, study: Any) -> None:
    state = provider.tune(study, return_state=True)
    error = state.result(raise_on_failure=False)
    assert state.is_failed()
    assert isinstance(error, tt.ConfigError)
    assert "credentials" in str(error)
    assert "hushhush" not in str(error)
