"""URLs of PostgreSQL are understood or refused before anything is asked. The tests with a server are in postgres/."""

from __future__ import annotations

import sys

import pytest

from tune_tasks.errors import ConfigError
from tune_tasks.store import open_objects
from tune_tasks.store import postgres as module

WRONG = "canary-of-the-url"


@pytest.mark.parametrize(
    ("url", "study", "settings"),
    [
        ("postgresql://host/db/a", "a", {"host": "host", "dbname": "db"}),
        ("postgres://host:5433/db/a//b/", "a/b", {"host": "host", "port": "5433", "dbname": "db"}),
        ("postgresql:///db/a", "a", {"dbname": "db"}),
        ("postgresql://[::1]:5433/db/a", "a", {"host": "::1", "port": "5433", "dbname": "db"}),
        ("postgresql://%2Frun%2Fpg/d%20b/a", "a", {"host": "/run/pg", "dbname": "d b"}),
        ("postgresql://one:1,two/db/a", "a", {"host": "one,two", "port": "1,", "dbname": "db"}),
        ("postgresql://me@host/db/you@there", "you@there", {"user": "me", "host": "host", "dbname": "db"}),
        ("postgresql://me:p%40%2Fw@host/db/a", "a", {"user": "me", "password": "p@/w", "host": "host", "dbname": "db"}),
        ("postgresql://:pw@host/db/a", "a", {"password": "pw", "host": "host", "dbname": "db"}),
    ],
)
def test_a_url_names_server_database_and_place(url: str, study: str, settings: dict[str, str]):
    found, given, _ = module._place(url)
    assert found == study
    assert {name: value for name, value in given.items() if name not in module._SETTINGS} == settings
    assert "pw" not in open_objects(url).url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://host", "postgresql://host' is not allowed; a URL of PostgreSQL is"),
        ("postgresql://host/db", "database/place/of/the/study"),
        ("postgresql://host/db/", "database/place/of/the/study"),
        ("postgresql://host//study", "database/place/of/the/study"),
        ("postgresql://host:port/db/a", "database/place/of/the/study"),
        ("postgresql://a[b/db/a", "database/place/of/the/study"),
        (f"postgresql://me:{WRONG}/x@host/db/a", "'/' and '@' of a password as %2F and %40"),
        (f"postgresql://me:{WRONG}@host/db/a@b", "'/' and '@' of a password as %2F and %40"),
        (f"postgresql://me:{WRONG}@host/db/a?sslmode=require", "PGSSLMODE=require"),
        (f"postgresql://me:{WRONG}@host/db/../a", r"without '\.'"),
        (f"postgresql://:{WRONG}@host/db", "database/place/of/the/study"),
    ],
)
def test_what_cannot_be_the_url_of_a_study_is_refused_without_showing_its_secret(url: str, message: str):
    with pytest.raises(ConfigError, match=message) as refused:
        open_objects(url)
    assert WRONG not in str(refused.value)


def test_a_missing_package_names_the_extra_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "tune_tasks.store.database", raising=False)
    with pytest.raises(
        ConfigError, match=r"store: postgresql://host/db/a needs .* pip install 'tune-tasks\[postgres\]'"
    ):
        open_objects("postgresql://host/db/a")
