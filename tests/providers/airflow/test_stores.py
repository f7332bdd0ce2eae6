"""The credentials of a store from Airflow's connections: where they go, for how long, and what is refused."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.airflow_home import run
from tests.studies import write_study
from tune_tasks.errors import ConfigError
from tune_tasks_airflow.stores import objects, opened, variables


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the connection `store`, and gives its name."""

    def connect(**fields: Any) -> str:
        monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps(fields))
        return "store"

    return connect


AMAZON = {
    "conn_type": "aws",
    "login": "AKIA",
    "password": "hunter2",
    "extra": {"endpoint_url": "http://minio:9000", "region_name": "eu-west-1"},
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            AMAZON,
            {
                "AWS_ACCESS_KEY_ID": "AKIA",
                "AWS_SECRET_ACCESS_KEY": "hunter2",
                "AWS_DEFAULT_REGION": "eu-west-1",
                "AWS_ENDPOINT_URL": "http://minio:9000",
            },
        ),
        ({"conn_type": "aws", "extra": {"aws_session_token": "for an hour"}}, {"AWS_SESSION_TOKEN": "for an hour"}),
        ({"conn_type": "aws"}, {}),
        (
            {"conn_type": "google_cloud_platform", "extra": {"key_path": "/keys/one.json"}},
            {"GOOGLE_APPLICATION_CREDENTIALS": "/keys/one.json"},
        ),
        (
            {"conn_type": "wasb", "login": "account", "password": "key"},
            {"AZURE_STORAGE_ACCOUNT_NAME": "account", "AZURE_STORAGE_ACCOUNT_KEY": "key"},
        ),
        ({"conn_type": "adls", "extra": {"sas_token": "sv=1"}}, {"AZURE_STORAGE_SAS_TOKEN": "sv=1"}),
        ({"conn_type": "wasb", "extra": {"connection_string": "A=b"}}, {"AZURE_STORAGE_CONNECTION_STRING": "A=b"}),
        ({"conn_type": "postgres", "login": "me", "password": "p@ss"}, {"PGUSER": "me", "PGPASSWORD": "p@ss"}),
    ],
)
def test_a_connection_is_what_the_client_of_its_store_reads(connect: Any, fields: Any, expected: Any) -> None:
    assert variables(connect(**fields)) == expected


def test_credentials_are_in_the_environment_for_the_time_of_a_task(
    connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "before")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    with opened(connect(**AMAZON)):
        assert (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]) == ("AKIA", "hunter2")
    assert os.environ["AWS_ACCESS_KEY_ID"] == "before"
    assert "AWS_SECRET_ACCESS_KEY" not in os.environ


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"conn_type": "ftp"}, "'store' is of type 'ftp'; known are adls, aws, google_cloud_platform, postgres, wasb"),
        ({"conn_type": "google_cloud_platform", "extra": {"keyfile_dict": "{}"}}, "give its path as key_path"),
    ],
)
def test_a_connection_that_cannot_be_used_is_refused(connect: Any, fields: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        variables(connect(**fields))


def test_a_connection_that_is_not_there_says_how_to_make_it() -> None:
    with pytest.raises(ConfigError, match=r"there is no connection 'none_such' .*airflow connections add none_such"):
        variables("none_such")


def test_a_local_study_needs_none(tmp_path: Any) -> None:
    assert objects(str(tmp_path), None).list("") == []


def test_no_secret_is_in_what_a_task_leaves_behind(connect: Any, tmp_path: Any, capsys: Any) -> None:
    name = connect(**AMAZON)
    done = run("tests", "once", {"spec": str(write_study(tmp_path)), "store_conn_id": name})
    assert set(done.states.values()) == {"success"}
    left = json.dumps([done.result(task) for task in done.states])
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert "hunter2" not in left + capsys.readouterr().out + written.decode(errors="replace")
