"""The connection to a Ray cluster: how it is read, what its Test button says, and that its token is not shown."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.execution.test_jobs import dashboard
from tune_tasks.errors import ConfigError
from tune_tasks_airflow.get_provider_info import get_provider_info
from tune_tasks_airflow.hooks import RayJobsHook, dashboard_of


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the connection `ray_default`."""

    def connect(**fields: Any) -> RayJobsHook:
        monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps({"conn_type": "ray_jobs", **fields}))
        return RayJobsHook()

    return connect


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ({"host": "http://head", "port": 8265}, "http://head:8265"),
        ({"host": "head"}, "http://head:8265"),
        ({"host": "https://ray.example/"}, "https://ray.example:8265"),
        ({"host": "https://ray.example:443"}, "https://ray.example:443"),
        ({"host": "head", "schema": "https", "port": 9000}, "https://head:9000"),
    ],
)
def test_the_address_is_that_of_the_form_however_it_was_filled_in(connect: Any, fields: Any, address: str) -> None:
    assert connect(**fields).dashboard().address == address


def test_the_token_is_sent_and_not_shown(connect: Any) -> None:
    made = connect(host="head", password="hunter2", extra={"headers": {"X-Team": "vision"}}).dashboard()
    assert made.headers == {"Authorization": "Bearer hunter2", "X-Team": "vision"}
    assert "hunter2" not in repr(made)


@pytest.mark.parametrize(
    ("given", "verify"), [(None, True), ("True", True), ("False", False), (False, False), ("/ca.pem", "/ca.pem")]
)
def test_the_certificate_is_checked_unless_it_is_said_otherwise(connect: Any, given: Any, verify: Any) -> None:
    extra = {} if given is None else {"verify": given}
    assert connect(host="https://head", extra=extra).dashboard().verify == verify


def test_the_test_button_says_the_version_or_what_is_wrong(connect: Any) -> None:
    with dashboard(lambda *_: (200, {"ray_version": "2.60.0"})) as (address, _):
        assert connect(host=address).test_connection() == (True, f"Ray 2.60.0 answers at {address}")
    good, told = connect(host="http://127.0.0.1:1").test_connection()
    assert not good
    assert "no Ray dashboard answers at http://127.0.0.1:1" in told


def test_a_connection_that_is_not_there_says_how_to_make_it() -> None:
    with pytest.raises(ConfigError, match=r"there is no connection 'none_such' .*airflow connections add none_such"):
        RayJobsHook("none_such").dashboard()


def test_a_connection_without_a_host_says_what_is_missing(connect: Any) -> None:
    with pytest.raises(ConfigError, match="connection 'ray_default' has no host; make it with"):
        connect().dashboard()


def test_a_cluster_of_the_run_is_reached_with_the_token_of_the_connection(connect: Any) -> None:
    connection = connect(host="https://elsewhere", password="hunter2", extra={"verify": "/ca.pem"}).dashboard()
    made = dashboard_of("ray_default", "https://made.example/")
    assert (made.address, made.headers, made.verify) == ("https://made.example", connection.headers, "/ca.pem")
    assert dashboard_of("ray_default", None) == connection
    assert dashboard_of(None, "http://head:8265").address == "http://head:8265"


def test_airflow_is_told_of_the_connection_what_the_hook_says_itself() -> None:
    (told,) = get_provider_info()["connection-types"]
    assert (told["connection-type"], told["hook-name"]) == (RayJobsHook.conn_type, RayJobsHook.hook_name)


def test_the_form_is_rendered_without_packages_of_its_own() -> None:
    program = """
import sys
from airflow.providers_manager import ProvidersManager
manager = ProvidersManager()
print(manager.hooks["ray_jobs"].hook_name)
print(sorted(name for name in manager.connection_form_widgets if "ray_jobs" in name))
print([name for name in ("flask_appbuilder", "ray", "tune_tasks.spec") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-3:] == ["Ray cluster (tune_tasks)", "['extra__ray_jobs__verify']", "[]"]
