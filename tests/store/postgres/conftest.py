"""A PostgreSQL for the tests in this folder, which say so and are skipped where its programs are not installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.servers import ACCESS, Missing
from tests.servers.postgres import PostgresServer, serve
from tune_tasks.store import Objects, open_objects


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    try:
        with serve() as started:
            yield started
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(autouse=True)
def environment(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds the credentials of the server, and nothing of a person's own."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    for name, value in {**server.environment, "PGPASSFILE": os.devnull}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def url(server: PostgresServer) -> str:
    """A place of its own in the database."""
    return server.place()


@pytest.fixture
def objects(url: str) -> Objects:
    return open_objects(url)


@pytest.fixture
def database(server: PostgresServer) -> Iterator[str]:
    """The name of a database of its own, in which nothing was made yet."""
    name = f"fresh_{uuid4().hex}"
    server.execute(f'CREATE DATABASE {name} OWNER "{ACCESS}"', database="postgres")
    yield name
    server.execute(f"DROP DATABASE {name} WITH (FORCE)", database="postgres")
