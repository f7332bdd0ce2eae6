"""Credentials of one thread's own: who opens a store with them, and who gets to see them."""

from __future__ import annotations

import asyncio
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

import tune_tasks as tt
from tests.studies import SPEC, write_study
from tune_tasks.errors import TuneError
from tune_tasks.execution.environment import runtime_env, worker_env
from tune_tasks.store import open_objects
from tune_tasks.store import postgres as module
from tune_tasks.store.credentials import given, using
from tune_tasks.testing.driving import spec_for
from tune_tasks.tracking import beside

SECRET = "hush-hush-hush"


def options(url: str) -> dict[str, Any]:
    """What the file system of a bucket is made with."""
    found: dict[str, Any] = open_objects(url)._inner._options
    return found


def test_two_threads_open_stores_with_their_own_credentials_at_once() -> None:
    both = Barrier(2)

    def opened(key: str) -> Any:
        with using({"AWS_ACCESS_KEY_ID": key}):
            both.wait(10)
            found = options("s3://bucket/studies/a")["key"]
            both.wait(10)
        return found

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(opened, ["one", "two"])) == ["one", "two"]
    assert "AWS_ACCESS_KEY_ID" not in given()
    assert os.environ.get("AWS_ACCESS_KEY_ID") not in {"one", "two"}


def test_a_block_in_a_block_has_nothing_of_the_outer_one_which_comes_back_after_it() -> None:
    with using({"AWS_ACCESS_KEY_ID": "outer", "AWS_SESSION_TOKEN": "of the outer one"}):
        with using({"AWS_ACCESS_KEY_ID": "inner"}):
            assert {"key", "token"} & set(options("s3://bucket/a")) == {"key"}
        assert given()["AWS_ACCESS_KEY_ID"] == "outer"


def test_what_asyncio_runs_in_a_thread_has_them_too() -> None:
    async def main() -> Any:
        with using({"AWS_ACCESS_KEY_ID": "mine"}):
            return await asyncio.to_thread(options, "s3://bucket/a")

    assert asyncio.run(main())["key"] == "mine"


def test_variables_of_a_call_go_before_those_of_the_thread() -> None:
    with using({"AWS_ACCESS_KEY_ID": "mine"}):
        found = open_objects("s3://bucket/a", variables={"AWS_ACCESS_KEY_ID": "its"})
        assert found._inner._options["key"] == "its"  # type: ignore[attr-defined]


def test_the_content_of_a_google_key_file_reaches_the_file_system() -> None:
    key = {"type": "service_account", "private_key": SECRET}
    with using({"FSSPEC_GCS": json.dumps({"token": key})}):
        assert options("gs://bucket/a")["token"] == key


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://host/db/a", "postgresql://me:p%40ss@host/db/a"),
        ("postgresql://you@host/db/a@b", "postgresql://you:p%40ss@host/db/a@b"),
        ("postgresql://you:yours@host/db/a", "postgresql://you:yours@host/db/a"),
    ],
)
def test_a_database_is_logged_in_to_as_its_variables_say_unless_the_url_does(url: str, expected: str) -> None:
    assert module.with_login(url, {"PGUSER": "me", "PGPASSWORD": "p@ss"}) == expected
    assert module.with_login(url, {}) == url


def test_an_error_names_the_address_and_no_secret() -> None:
    variables = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
    with (
        using({**variables, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_DEFAULT_REGION": "eu-west-1"}),
        pytest.raises(TuneError) as raised,
    ):
        open_objects("s3://bucket/a", deadline=3.0).read("key")
    assert "127.0.0.1:9" in str(raised.value)
    assert SECRET not in str(raised.value)
    assert "AKIAEXAMPLE" not in str(raised.value)


def test_workers_and_jobs_of_the_thread_get_them_and_a_study_s_log_does_not(tmp_path: Path) -> None:
    spec = spec_for("objective:train", environment={"variables": {"PLAIN": "yes"}})
    with using({"AWS_SECRET_ACCESS_KEY": SECRET}):
        for made in (worker_env(spec, None), runtime_env(spec, None)):
            assert made["env_vars"] == {"PLAIN": "yes", "AWS_SECRET_ACCESS_KEY": SECRET}
        study = tt.tune(write_study(tmp_path, budget={"trials": 1}))
    assert worker_env(spec, None)["env_vars"] == {"PLAIN": "yes"}
    assert study.state.done
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET.encode() not in written


def watches(config: dict[str, float]) -> None:
    """Reports, and in all trials but the first waits until the report of another process is there."""
    limit = time.monotonic() + 60
    while tt.get_context().trial and not Path(os.environ["SHOWN"]).exists() and time.monotonic() < limit:
        time.sleep(0.1)
    tt.report({"loss": config["x"]})


@pytest.mark.s3
def test_the_process_beside_a_step_reads_the_log_with_them(
    tmp_path: Path, moto_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SHOWN", str(tmp_path / "small" / "reports.csv"))
    monkeypatch.setattr(beside, "DELAY", 0.0)
    spec = {**SPEC, "store": moto_server.place(), "objective": watches, "scheduler": "none"}
    with using(moto_server.environment):
        study = tt.open_study({**spec, "tracking": [{"name": "files", "to": str(tmp_path)}]})
        tt.launch_trials(study, tt.sample(study))
    assert (tmp_path / "small" / "reports.csv").exists()
