"""Who may use a database, and how it is named: what only a person can mend is said at once, without its secrets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from tests.servers import ACCESS, SECRET
from tests.servers.postgres import PostgresServer
from tests.store.happenings import Happenings, created, told
from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.store import Objects, StudyLog, open_objects, probe
from tune_tasks.store import database as connections
from tune_tasks.store import postgres as module
from tune_tasks.store.segment import segment_key

WRONG = "canary-of-the-url"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda url: url.replace("127.0.0.1", f"{ACCESS}:{WRONG}@127.0.0.1"), "authentication failed.*PGPASSWORD"),
        (lambda url: url.replace("127.0.0.1", f"nobody:{WRONG}@127.0.0.1"), "authentication failed"),
        (lambda url: url.replace("/studies/", "/absent/"), 'database "absent" does not exist; check'),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda objects: objects.create("log/1", b"x"),
        lambda objects: objects.read("log/1"),
        lambda objects: objects.entries("log/"),
        probe,
    ],
)
def test_what_only_a_person_can_mend_names_the_store_at_once(
    url: str, change: Callable, message: str, call: Callable, caplog: pytest.LogCaptureFixture
):
    objects = open_objects(change(url))
    with pytest.raises(ConfigError, match=rf"(?s)^store: {objects.url}: .*{message}") as refused:
        call(objects)
    shown = [str(refused.value), repr(refused.value.__cause__), objects.url, repr(objects), repr(StudyLog(objects))]
    assert refused.value.__suppress_context__
    assert caplog.records == []
    for secret in (SECRET, WRONG, "nobody"):
        assert secret not in "".join(shown)


def test_without_a_password_the_store_is_named(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PGPASSWORD")
    with pytest.raises(ConfigError, match=r"no password supplied; check .* PGUSER and PGPASSWORD"):
        open_objects(url).read("log/1")


def test_a_server_that_is_not_there_is_unavailable_without_a_secret_in_the_message(
    caplog: pytest.LogCaptureFixture,
):
    objects = open_objects(f"postgresql://canaryuser:{WRONG}@127.0.0.1:9/studies/x", deadline=1.0)
    with pytest.raises(Unavailable, match=r"^postgresql://127.0.0.1:9/studies/x: cannot read log/1") as failed:
        objects.read("log/1")
    said = [str(failed.value), repr(failed.value.__cause__), *(record.getMessage() for record in caplog.records)]
    for secret in (SECRET, WRONG, "canaryuser"):
        assert secret not in "".join(said)


@pytest.fixture
def stranger(server: PostgresServer, environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A role that was granted nothing, and that the environment now logs in as."""
    server.execute(f"CREATE ROLE stranger LOGIN PASSWORD '{SECRET}'")
    monkeypatch.setenv("PGUSER", "stranger")
    yield "stranger"
    for database in [row[0] for row in server.execute("SELECT datname FROM pg_database WHERE NOT datistemplate")]:
        server.execute("DROP OWNED BY stranger", database=database)
    server.execute("DROP ROLE stranger")


def fresh(server: PostgresServer, database: str) -> Objects:
    return open_objects(server.url.replace("/studies", f"/{database}/study"))


def test_a_role_that_may_not_make_the_tables_is_told_what_it_needs(
    server: PostgresServer, database: str, stranger: str
):
    objects = fresh(server, database)
    assert objects.read("log/1") is None
    assert objects.list("") == []
    with pytest.raises(ConfigError, match=r"SQLSTATE 42501: .*permission denied for database .*docs/postgres.md lists"):
        objects.create("log/1", b"x")


def test_the_least_that_a_writer_and_a_reader_need(server: PostgresServer, objects: Objects, url: str, stranger: str):
    """Nobody needs to be able to change or to delete a segment of the log."""
    with pytest.MonkeyPatch.context() as owner:
        owner.setenv("PGUSER", ACCESS)
        objects.create("HEAD.json", b"{}")
    other = open_objects(url)
    with pytest.raises(
        ConfigError, match=r"SQLSTATE 42501: .*permission denied for schema tune_tasks; grant this role"
    ):
        other.read("log/1")
    server.execute("GRANT USAGE ON SCHEMA tune_tasks TO stranger")
    server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA tune_tasks TO stranger")
    assert other.read(segment_key(1)) is None
    assert other.read("HEAD.json") == b"{}"
    with pytest.raises(ConfigError, match="permission denied for table segments"):
        other.create(segment_key(1), b"x")
    server.execute("GRANT INSERT ON tune_tasks.segments TO stranger")
    server.execute("GRANT INSERT, UPDATE, DELETE ON tune_tasks.objects, tune_tasks.pieces TO stranger")
    probe(other)
    log, happenings = StudyLog(other), Happenings(Random(1))
    assert log.create(created())
    assert log.commit(happenings.happen(30), role="step", epoch=0)
    log.snapshot(happenings.state)
    log.settle()
    assert told(StudyLog(other).load()) == told(happenings.state)
    assert len(other.list("snap/")) == 1
    for change in (other.delete, lambda key: other.replace(key, b"x")):
        with pytest.raises(ConfigError, match="permission denied for table segments"):
            change(segment_key(1))


def test_tables_that_are_not_ours_are_refused(server: PostgresServer, database: str):
    server.execute("CREATE SCHEMA tune_tasks", database=database)
    server.execute("CREATE TABLE tune_tasks.segments (x int)", database=database)
    server.execute(f'GRANT ALL ON SCHEMA tune_tasks TO "{ACCESS}"', database=database)
    server.execute(f'GRANT ALL ON tune_tasks.segments TO "{ACCESS}"', database=database)
    with pytest.raises(ConfigError, match=r"SQLSTATE 42703: .*check that the schema tune_tasks holds the tables"):
        fresh(server, database).create(segment_key(1), b"x")


def test_of_several_that_make_the_tables_at_once_none_fails(
    server: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
):
    ask = connections.Session.ask

    def slowly(session, statement, *values):
        answer = ask(session, statement, *values)
        if statement == module._MADE:
            time.sleep(0.3)  # time enough for the others to see as well that there are none
        return answer

    monkeypatch.setattr(connections.Session, "ask", slowly)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda me: fresh(server, database).create(f"log/{me}", b"x"), range(4)))
    assert made == [True] * 4


def test_tables_can_be_made_in_a_schema_that_is_there(server: PostgresServer, database: str, stranger: str):
    """Whoever may not make a schema can be given an empty one."""
    server.execute("CREATE SCHEMA tune_tasks AUTHORIZATION stranger", database=database)
    assert fresh(server, database).create("log/1", b"x")


def test_settings_of_libpq_come_from_the_environment(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PGSSLMODE", "require")
    with pytest.raises(ConfigError, match="server does not support SSL, but SSL was required"):
        open_objects(url).read("log/1")


def test_credentials_may_be_in_a_password_file_or_in_the_url(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("PGPASSWORD")
    monkeypatch.delenv("PGUSER")
    assert open_objects(url.replace("127.", f"{ACCESS}:{SECRET}@127.")).read("log/1") is None
    (tmp_path / "passwords").write_text(f"127.0.0.1:*:studies:{ACCESS}:{SECRET}\n")
    (tmp_path / "passwords").chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "passwords"))
    assert open_objects(url.replace("127.", f"{ACCESS}@127.")).read("log/1") is None
