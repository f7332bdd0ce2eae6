"""Connections to one PostgreSQL database: every request has an end, and every failure becomes one of our errors.

Uses the lower half of psycopg, since a cursor of its upper half waits for a server that hangs for ever. This is the
one module that imports psycopg. It must not know what the statements mean, and must not try anything twice.
"""

from __future__ import annotations

import os
import re
import select
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import psycopg
from psycopg import pq

from tune_tasks.errors import ConfigError, TuneError, Unavailable

COPIES = 4
"""Large files that are under way at once. Each holds a connection, and a server has a hundred of them by default."""

_CONNECT = 5
"""Seconds that a host of the address has to let us in, or fewer where the deadline is short; libpq's least is 2."""
_IDLE = 60.0
"""Seconds after which a connection that was not needed is closed."""
_LONGEST = 500

_NO_TABLES = {"42P01", "3F000"}
_CONFIG = {"0A", "22", "28", "3D", "3F", "42"}
"""The classes of SQLSTATE that another try does not mend. Any other may pass: broken, full, stopping, a standby."""
_PERMISSION = "42501"
_ENCODING = {"22021", "22P05"}

# libpq does not tell the state of a login that failed, and a pooler gives one state for all of them. So here the text
# decides; what is not recognised, such as the text of a server that does not speak English, counts as passing.
_LOGIN = re.compile(
    "authentication failed|no password supplied|does not exist|no such (database|user)|not permitted|permission denied|"
    "pg_hba.conf|definition of service|invalid|certificate|SSL was required|SSL is required",
    re.IGNORECASE,
)


class Answer(NamedTuple):
    """The rows of a reply, each value as bytes (the text of a number), and how many rows were written."""

    rows: list[tuple[bytes, ...]]
    written: int


class NoTables(Exception):
    """The tables that a statement names are not there. Never leaves the store."""


class Database:
    """Gives connections to whoever asks. Safe between threads, and after a fork.

    `silence`: seconds after which a server that neither takes nor sends a byte is given up.
    """

    def __init__(self, settings: Mapping[str, Any], shown: str, secrets: set[str], silence: float) -> None:
        self._settings, self._shown, self._secrets, self._silence = settings, shown, secrets, silence
        self._pool: tuple[int, _Pool] | None = None

    def ask(self, statement: str, *values: str | int | bytes) -> Answer:
        """Sends one statement, which is a transaction of its own. Raises `NoTables`, and our errors."""
        with self.session() as session:
            return session.ask(statement, *values)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Gives a connection for several statements. A block that fails closes it, which ends its transaction.

        A block that does not fail has ended the transactions that it began.
        """
        pool = self._own_pool()
        with self._translated():
            session = pool.take() or self._connected()
            try:
                yield session
            except BaseException:
                session.close()
                pool.close()  # what broke one connection has most often broken all of them
                raise
            pool.give(session)

    @contextmanager
    def copying(self) -> Iterator[Session]:
        """Gives one of the few connections for large files; waits for it as long as the others make progress."""
        with self._own_pool().copies, self.session() as session:
            yield session

    def _own_pool(self) -> _Pool:
        """The connections of this process: one that a fork shared would mix the replies to two processes."""
        if self._pool is None or self._pool[0] != os.getpid():
            self._pool = os.getpid(), _Pool()
        return self._pool[1]

    def _connected(self) -> Session:
        try:
            patience = max(2, min(_CONNECT, round(self._silence)))
            return Session(_Connection.connect(**self._settings, connect_timeout=patience), self._silence)
        except (psycopg.Error, UnicodeError) as error:
            raise self._login(str(error)) from None

    def _login(self, text: str) -> TuneError:
        told = f"{self._shown}: cannot connect: {self._redacted(text)}"
        if _LOGIN.search(text):
            return ConfigError(
                f"store: {told}; check that the database exists, and that PGUSER and PGPASSWORD (or what else libpq "
                "reads) may log in to it"
            )
        return Unavailable(told)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Not chained: the original's text may hold what must not be shown."""
        try:
            yield
        except _Refused as error:
            if error.state in _NO_TABLES:
                raise NoTables from None
            raise self._named(error) from None
        except (psycopg.Error, _Silent) as error:
            raise Unavailable(f"{self._shown}: {self._redacted(str(error))}") from None

    def _named(self, error: _Refused) -> TuneError:
        told = f"{self._shown}: SQLSTATE {error.state}: {self._redacted(str(error))}"
        if error.state[:2] not in _CONFIG:
            return Unavailable(told)
        if error.state == _PERMISSION:
            return ConfigError(f"store: {told}; grant this role what docs/postgres.md lists, or log in as another one")
        if error.state in _ENCODING:
            return ConfigError(f"store: {told}; use names that it can hold, or a database with encoding UTF8")
        return ConfigError(f"store: {told}; check that the schema tune_tasks holds the tables of docs/postgres.md")

    def _redacted(self, text: str) -> str:
        """The text on one line and without the credentials of the URL, and the password of the environment."""
        text = " ".join(text.split())
        for secret in self._secrets | {os.environ.get("PGPASSWORD", "")} - {""}:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
        return text[:_LONGEST]


class Session:
    """One connection, for one thread at a time."""

    def __init__(self, connection: _Connection, silence: float) -> None:
        self._connection, self._silence = connection, silence
        self._wire = connection.pgconn
        self._poll = select.poll()
        self.used = time.monotonic()

    def ask(self, statement: str, *values: str | int | bytes) -> Answer:
        """Sends one statement, and waits for its whole reply."""
        sent = [value if isinstance(value, bytes) else str(value).encode() for value in values]
        formats = [pq.Format.BINARY if isinstance(value, bytes) else pq.Format.TEXT for value in values]
        self._wire.send_query_params(statement.encode(), sent, None, formats, pq.Format.BINARY)
        while self._wire.flush():
            self._wait(select.POLLIN | select.POLLOUT)
        answer = Answer([], 0)
        while (result := self._result()) is not None:
            answer = _answer(result)
        return answer

    def close(self) -> None:
        """Hangs up, whatever state the connection is in."""
        with suppress(Exception):
            self._connection.close()

    def _result(self) -> pq.abc.PGresult | None:
        while self._wire.is_busy():
            self._wait(select.POLLIN)
        return self._wire.get_result()

    def _wait(self, events: int) -> None:
        """Waits until a byte can be sent or is there. In total a request has no end: a large one may take long."""
        self._poll.register(self._wire.socket, events)
        if not self._poll.poll(1000 * self._silence):
            raise _Silent(f"no answer within {self._silence:g} s")
        self._wire.consume_input()


class _Pool:
    """The open connections of one process that nobody uses just now, the one that was used last on top."""

    def __init__(self) -> None:
        self.copies = threading.BoundedSemaphore(COPIES)
        self._idle: list[Session] = []
        self._lock = threading.Lock()

    def take(self) -> Session | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def give(self, session: Session) -> None:
        session.used = time.monotonic()
        with self._lock:
            unneeded = [each for each in self._idle if each.used < session.used - _IDLE]
            self._idle = [each for each in self._idle if each not in unneeded] + [session]
        for each in unneeded:
            each.close()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()


class _Connection(psycopg.Connection[Any]):
    """A connection that may be forgotten: stores have no end at which they are closed."""

    def __del__(self, *_: object) -> None:
        """Without psycopg's warning. The socket is closed all the same, in the process that opened it."""


class _Refused(Exception):
    """The server understood, and said no."""

    def __init__(self, state: str, text: str) -> None:
        super().__init__(text)
        self.state = state


class _Silent(Exception):
    """The server did not say anything."""


def _answer(result: pq.abc.PGresult) -> Answer:
    if result.status not in {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK}:
        state = result.error_field(pq.DiagnosticField.SQLSTATE) or b""
        text = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
        raise _Refused(state.decode(), text.decode(errors="replace"))
    columns = range(result.nfields)
    rows = [tuple(result.get_value(row, column) or b"" for column in columns) for row in range(result.ntuples)]
    return Answer(rows, result.command_tuples or 0)
