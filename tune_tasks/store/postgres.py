"""Objects as rows of PostgreSQL, for teams that prefer a database. One URL holds all of a study, checkpoints too.

Each call on a small object is one statement, which is one transaction, and nothing is left behind in the connection:
so a pooler that lends a connection for a transaction (pgbouncer) may stand in between. This module must not retry, and
must not answer from anything but the primary server.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import quote, unquote

from tune_tasks.errors import ConfigError, invalid
from tune_tasks.store.copies import Copied
from tune_tasks.store.names import Entry, has_credentials, shown_url, split_credentials, split_url
from tune_tasks.store.segment import segment_key, segment_number

if TYPE_CHECKING:
    from tune_tasks.store.database import Session

PIECE = 1 << 20
"""Bytes of a large file in one row."""

TABLES = (
    """CREATE TABLE tune_tasks.segments (
        study text COLLATE "C" NOT NULL,
        number bigint NOT NULL,
        data bytea NOT NULL,
        modified timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (study, number))""",
    """CREATE TABLE tune_tasks.objects (
        study text COLLATE "C" NOT NULL,
        key text COLLATE "C" NOT NULL,
        data bytea NOT NULL,
        size bigint,
        modified timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (study, key))""",
    """CREATE TABLE tune_tasks.pieces (
        study text COLLATE "C" NOT NULL,
        key text COLLATE "C" NOT NULL,
        number integer NOT NULL,
        data bytea NOT NULL,
        PRIMARY KEY (study, key, number),
        FOREIGN KEY (study, key) REFERENCES tune_tasks.objects ON DELETE CASCADE)""",
    # Snapshots and checkpoints hardly get smaller, and compressing them takes longer than writing them.
    "ALTER TABLE tune_tasks.objects ALTER data SET STORAGE EXTERNAL",
    "ALTER TABLE tune_tasks.pieces ALTER data SET STORAGE EXTERNAL",
)
"""The log, by number; every other object, by key; and the pieces of those that are too large for one row.

An object that lies in pieces has its size, and no data of its own.
"""

# A commit that is acknowledged survives a power failure, also where the server's default says otherwise. Set within
# the statement, for its own transaction: as a setting of the connection a pooler would hand it to strangers.
_INTO_SEGMENTS = """
    WITH durably AS (SELECT set_config('synchronous_commit', 'on', true))
    INSERT INTO tune_tasks.segments (study, number, data) SELECT $1, $2::bigint, $3::bytea FROM durably ON CONFLICT"""
_INTO_OBJECTS = """
    WITH durably AS (SELECT set_config('synchronous_commit', 'on', true))
    INSERT INTO tune_tasks.objects (study, key, data) SELECT $1, $2, $3::bytea FROM durably ON CONFLICT"""


class _Rows(NamedTuple):
    """The statements about one object, whose parameters are the study, the object's name in it, and its data."""

    create: str
    replace: str
    read: str
    delete: str


_SEGMENT = _Rows(
    f"{_INTO_SEGMENTS} DO NOTHING",
    f"{_INTO_SEGMENTS} (study, number) DO UPDATE SET data = excluded.data, modified = excluded.modified",
    "SELECT data, NULL FROM tune_tasks.segments WHERE study = $1 AND number = $2::bigint",
    "DELETE FROM tune_tasks.segments WHERE study = $1 AND number = $2::bigint",
)
_OBJECT = _Rows(
    f"{_INTO_OBJECTS} DO NOTHING",
    f"{_INTO_OBJECTS} (study, key)"
    " DO UPDATE SET data = excluded.data, size = excluded.size, modified = excluded.modified",
    "SELECT data, size::text FROM tune_tasks.objects WHERE study = $1 AND key = $2",
    "DELETE FROM tune_tasks.objects WHERE study = $1 AND key = $2",
)
_ENTRIES = """
    SELECT key, coalesce(size, octet_length(data))::text, extract(epoch FROM modified)::text
        FROM tune_tasks.objects WHERE study = $1 AND key LIKE $2
    UNION ALL
    SELECT 'log/' || lpad(number::text, 12, '0') || '.jsonl', octet_length(data)::text,
        extract(epoch FROM modified)::text
        FROM tune_tasks.segments WHERE study = $1 AND number BETWEEN $3::bigint AND $4::bigint"""
_KEYS = """
    SELECT key FROM tune_tasks.objects WHERE study = $1 AND key LIKE $2
    UNION ALL
    SELECT 'log/' || lpad(number::text, 12, '0') || '.jsonl'
        FROM tune_tasks.segments WHERE study = $1 AND number BETWEEN $3::bigint AND $4::bigint"""

# The row of the object is written first: whoever else writes it waits there until this transaction is over.
_CLEAR = "DELETE FROM tune_tasks.pieces WHERE study = $1 AND key = $2"
_ADD = "INSERT INTO tune_tasks.pieces (study, key, number, data) VALUES ($1, $2, $3::integer, $4::bytea)"
_FINISH = "UPDATE tune_tasks.objects SET size = $3::bigint, modified = clock_timestamp() WHERE study = $1 AND key = $2"
_PIECE = "SELECT data FROM tune_tasks.pieces WHERE study = $1 AND key = $2 AND number = $3::integer"

_LOCK = "SELECT pg_advisory_xact_lock(1953853029)"  # "tune"
_MADE = "SELECT to_regnamespace('tune_tasks') IS NOT NULL, to_regclass('tune_tasks.pieces') IS NOT NULL"
_TRUE = b"\1"

_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d+))?")
_FORM = (
    "a URL of PostgreSQL is postgresql://[user:password@]host[:port]/database/place/of/the/study, with '/' and '@' of "
    "a password as %2F and %40"
)

# What a standby says is old, so no standby is asked; only the environment's own name for the program is kept.
_SETTINGS = {
    "target_session_attrs": "primary",
    "client_encoding": "UTF8",
    "fallback_application_name": "tune_tasks",
}

T = TypeVar("T")


class PostgresObjects:
    """The objects of one study in a database. Safe between threads, and after a fork."""

    lanes = 4

    def __init__(self, url: str, deadline: float) -> None:
        self.url = shown_url(url)
        self._study, settings, secrets = _place(url)
        try:
            from tune_tasks.store.database import Database, NoTables
        except ImportError:
            raise ConfigError(
                f"store: {self.url} needs a package that is not installed; install it with pip install "
                "'tune-tasks[postgres]'"
            ) from None
        self._database = Database(settings, self.url, secrets, silence=deadline / 3)
        self._no_tables = NoTables

    def __repr__(self) -> str:
        return f"<objects at {self.url}>"

    def create(self, key: str, data: bytes) -> bool:
        """See `Objects.create`: the primary key lets one row in."""
        rows, name = _named(key)
        return self._making(lambda: self._database.ask(rows.create, self._study, name, data).written == 1)

    def read(self, key: str) -> bytes | None:
        """See `Objects.read`."""
        rows, name = _named(key)
        found = self._found(rows.read, self._study, name)
        if not found or not found[0][1]:
            return found[0][0] if found else None
        with self._database.copying() as session:
            return b"".join(self._pieces(session, key))

    def replace(self, key: str, data: bytes) -> None:
        """See `Objects.replace`."""
        rows, name = _named(key)
        self._making(lambda: self._database.ask(rows.replace, self._study, name, data))

    def entries(self, prefix: str) -> list[Entry]:
        """See `Objects.entries`; by the clock of the server."""
        found = self._found(_ENTRIES, self._study, *_range(prefix))
        return sorted(Entry(key.decode(), int(size), float(modified)) for key, size, modified in found)

    def unfinished(self, before: float, *, remove: bool = False) -> list[Entry]:  # noqa: ARG002  # see below
        """See `Objects.unfinished`: the server takes back what a writer did not finish."""
        return []

    def list(self, prefix: str) -> list[str]:
        """See `Objects.list`."""
        return sorted(key.decode() for (key,) in self._found(_KEYS, self._study, *_range(prefix)))

    def delete(self, key: str) -> None:
        """See `Objects.delete`."""
        rows, name = _named(key)
        self._found(rows.delete, self._study, name)

    def upload(self, source: Path, key: str) -> Copied:
        """See `Files.upload`; all pieces in one transaction, so that nobody sees a part, and none is left behind."""
        return self._making(lambda: self._upload(source, key))

    def download(self, key: str, target: Path, size: int) -> Copied | None:
        """See `Files.download`; piece by piece, all of them as they were when it began."""
        try:
            with self._database.copying() as session:
                return self._download(session, key, target, size)
        except self._no_tables:
            return None

    def _download(self, session: Session, key: str, target: Path, size: int) -> Copied | None:
        pieces = self._pieces(session, key)
        first = next(pieces, None)
        if first is None:
            return None
        digest, done = hashlib.sha256(), 0
        with target.open("wb") as file:
            for piece in chain([first], pieces):
                wanted = piece[: size - done]
                digest.update(wanted)
                done += file.write(wanted)
        return Copied(done, digest.hexdigest())

    def _pieces(self, session: Session, key: str) -> Iterator[bytes]:
        """What an object consists of, as it is when the first is asked for; nothing where it is absent."""
        rows, name = _named(key)
        session.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for data, size in session.ask(rows.read, self._study, name).rows:
            if not size:
                yield data
                continue
            for number in count():
                piece = session.ask(_PIECE, self._study, key, number).rows
                if not piece:
                    break
                yield piece[0][0]
        session.ask("COMMIT")

    def _upload(self, source: Path, key: str) -> Copied:
        digest, done = hashlib.sha256(), 0
        with source.open("rb") as reader:
            piece, following = reader.read(PIECE), reader.read(PIECE)
            if not following:
                self.replace(key, piece)
                return Copied(len(piece), hashlib.sha256(piece).hexdigest())
            with self._database.copying() as session:
                session.ask("BEGIN")
                session.ask(_OBJECT.replace, self._study, key, b"")
                session.ask(_CLEAR, self._study, key)
                for number in count():
                    session.ask(_ADD, self._study, key, number, piece)
                    digest.update(piece)
                    done += len(piece)
                    piece, following = following, reader.read(PIECE)
                    if not piece:
                        break
                session.ask(_FINISH, self._study, key, done)
                session.ask("COMMIT")
        return Copied(done, digest.hexdigest())

    def _found(self, statement: str, *values: str | int) -> Sequence[tuple[bytes, ...]]:
        """The rows that a statement finds: none where no study was ever written."""
        try:
            return self._database.ask(statement, *values).rows
        except self._no_tables:
            return []

    def _making(self, write: Callable[[], T]) -> T:
        """Writes, and makes the tables where they are not there."""
        try:
            return write()
        except self._no_tables:
            self._make_tables()
            return write()

    def _make_tables(self) -> None:
        """In one transaction and one after the other, since two that make a schema at once can both fail."""
        with self._database.session() as session:
            session.ask("BEGIN")
            session.ask(_LOCK)
            schema, tables = session.ask(_MADE).rows[0]
            if schema != _TRUE:
                session.ask("CREATE SCHEMA tune_tasks")
            if tables != _TRUE:
                for statement in TABLES:
                    session.ask(statement)
            session.ask("COMMIT")


def _named(key: str) -> tuple[_Rows, str]:
    """The statements for an object, and its name in them. No two keys have the same one."""
    number = segment_number(key)
    if number is not None and segment_key(number) == key:
        return _SEGMENT, str(number)
    return _OBJECT, key


def _range(prefix: str) -> tuple[str, int, int]:
    """What finds the keys that begin with a prefix: a pattern, and the first and last number of a segment."""
    pattern = re.sub(r"([\\%_])", r"\\\1", prefix) + "%"
    digits = prefix[4:16]
    if "log/".startswith(prefix[:4]) and re.fullmatch("[0-9]*", digits):
        first = int(digits.ljust(12, "0"))
        if segment_key(first).startswith(prefix):
            return pattern, first, int(digits.ljust(12, "9"))
    return pattern, 1, 0


def with_login(url: str, variables: Mapping[str, str]) -> str:
    """The URL with the user and the password that are in PGUSER and PGPASSWORD, unless it has its own."""
    if "PGUSER" not in variables or has_credentials(url):
        return url
    scheme, _, rest = url.partition("://")
    user, password = (quote(variables.get(name, ""), safe="") for name in ("PGUSER", "PGPASSWORD"))
    if "@" in rest.partition("/")[0]:
        return f"{scheme}://{rest.replace('@', f':{password}@', 1)}"
    return f"{scheme}://{user}:{password}@{rest}"


def _place(url: str) -> tuple[str, dict[str, str], set[str]]:
    """The place of the study in the database, what libpq is to be told of the server, and what must never be shown."""
    _, rest = split_url(url)
    place, credentials = split_credentials(rest)
    authority, _, path = place.partition("/")
    database, _, below = path.partition("/")
    study = "/".join(filter(None, below.split("/")))
    user, _, listed = authority.rpartition("@")
    hosts = [match.groups("") for host in listed.split(",") if (match := _HOST.fullmatch(host))]
    # So that none is ever shown, a password is taken to end at the last '@', even at one of the path.
    unclear = "/" in rest[: len(rest) - len(place)]
    if unclear or not database or not study or len(hosts) <= listed.count(","):
        raise invalid("store", shown_url(url), _FORM)
    settings = {
        "user": credentials.user if credentials else unquote(user),
        "password": credentials.password if credentials else "",
        "host": ",".join(unquote(host.strip("[]")) for host, _ in hosts),
        "port": ",".join(port for _, port in hosts),
    }
    given = {name: value for name, value in settings.items() if value.strip(",")}  # the rest is for libpq to find
    secrets = {text for part in credentials or () for text in (part, quote(part, safe=""))}
    return study, {"dbname": unquote(database), **given, **_SETTINGS}, secrets
