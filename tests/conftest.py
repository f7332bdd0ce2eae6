"""What holds for all tests, in both environments."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Missing

if importlib.util.find_spec("hypothesis"):  # the environment with Airflow has none
    from hypothesis import settings

    # A slow moment of the machine is no failure; and CI says the same of the same code, while others look on.
    settings.register_profile("here", deadline=None)
    settings.register_profile("ci", deadline=None, derandomize=True)
    settings.load_profile("ci" if os.environ.get("CI") else "here")

REAL = ("ray", "prefect", "slow")
"""The marks of tests with real clusters and servers, which two cores may starve until a deadline passes."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Gives such a test a second try, which the report names; one that fails twice has failed.

    Those with a real Airflow come last: it takes a part of the machine for as long as it runs.
    """
    items.sort(key=lambda item: "airflow" in getattr(item, "fixturenames", ()))
    if config.pluginmanager.hasplugin("rerunfailures"):  # not everyone runs these tests by `make test`
        for item in items:
            if any(item.get_closest_marker(mark) for mark in REAL):
                item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Shows why a first try failed; that the second one passed is no reason not to know."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.section(f"first try of {report.nodeid}")
        terminalreporter.line(report.longreprtext[-3000:])


FOREIGN = ("AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR_HOST")
"""What a person's environment may say of stores of their own, which no test may reach."""


def served(start: Callable[[Path], AbstractContextManager[Any]], factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Runs a server for the rest of the session; skips where it is not installed, and says what is missing."""
    try:
        with start(factory.mktemp(start.__name__)) as server:
            yield server
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.servers.moto import moto

    yield from served(moto, tmp_path_factory)


@pytest.fixture(scope="session")
def radosgw_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.servers.ceph import radosgw

    yield from served(radosgw, tmp_path_factory)


@pytest.fixture(scope="session")
def azurite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.servers.azurite import azurite

    yield from served(azurite, tmp_path_factory)


@pytest.fixture(scope="session")
def google_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tests.servers.google import fake_gcs

    yield from served(fake_gcs, tmp_path_factory)


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real Airflow on SQLite with the DAGs of the project and of the tests."""
    from tests.airflow_home import BUNDLES
    from tests.airflow_standalone import standalone

    with standalone(tmp_path_factory.mktemp("airflow"), BUNDLES) as started:
        yield started


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], str]:
    """Turns the environment to a server, and returns the URL of a place of its own there."""

    def turn(server: Any) -> str:
        for name in [name for name in os.environ if name.startswith(FOREIGN)]:
            monkeypatch.delenv(name)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        return server.place()

    return turn


@pytest.fixture
def s3(moto_server: Any, reach: Callable[[Any], str]) -> str:
    """The URL of a place of its own on an S3 server, to which the environment holds address and credentials."""
    return reach(moto_server)
