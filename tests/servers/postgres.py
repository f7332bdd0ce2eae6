"""A real PostgreSQL of its own: made by initdb in a folder that goes with it, with fsync on as it is by default.

One database and one role that owns it, and no superuser whose password the tests would know by accident.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.servers import ACCESS, SECRET, Missing
from tests.servers.processes import free_port, program, wait_until

DATABASE = "studies"
ADMIN = "admin"
PACKAGE = "the Debian package postgresql"

_ADMIN_SECRET = "only-for-the-tests-themselves"
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_LIBC = ctypes.CDLL(None)
# Room for the log of what is written between two checkpoints of the server, so that a test does not measure those.
_SETTINGS = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_wal_size=4GB", "log_min_messages=warning")


@dataclass
class PostgresServer:
    """A server on 127.0.0.1. `execute` is for what an administrator does."""

    folder: Path
    port: int
    settings: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where a study can lie: add a name. Credentials are in the environment."""
        return f"postgresql://127.0.0.1:{self.port}/{DATABASE}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to log in as the owner of the database."""
        return {"PGUSER": ACCESS, "PGPASSWORD": SECRET}

    def place(self) -> str:
        """The URL of a place where no study was yet."""
        return f"{self.url}/{uuid4().hex}"

    def start(self, *settings: str) -> None:
        """Starts the server, after a kill too; `settings` are name=value."""
        self.settings = settings or self.settings
        command = [_program("postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        command += [part for setting in (*_SETTINGS, *self.settings) for part in ("-c", setting)]
        log, mother = self.folder / "log", os.getpid()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                preexec_fn=lambda: _end_with(mother),  # noqa: PLW1509  # it makes two system calls
                **_as_owner(),
            )
        wait_until(self._answers, self.process, log)

    def kill(self) -> None:
        """Ends the server and every process of it as a power failure would: nothing is written any more."""
        assert self.process is not None
        serving = self.serving()
        for number in (self.process.pid, *serving):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.process.wait()
        while any(map(_lives, serving)):  # they are not our children
            time.sleep(0.01)

    def stop(self) -> None:
        """Ends the server in order, or by force where that takes long; it may have ended, or never begun."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()

    def serving(self) -> list[int]:
        """The processes that the server has started, one of them for each connection."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(number) for number in children.read_text().split()] if children.exists() else []

    def execute(self, statement: str, *values: Any, database: str = DATABASE) -> list[tuple[Any, ...]]:
        """Runs a statement as the administrator, and returns its rows if it has any."""
        with self._login(database) as connection:
            cursor = connection.execute(statement, values or None)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def _login(self, database: str) -> Any:
        import psycopg

        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=ADMIN,
            password=_ADMIN_SECRET,
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )

    def _answers(self) -> bool:
        import psycopg

        try:
            self._login("postgres").close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def serve(*settings: str) -> Iterator[PostgresServer]:
    """Runs a server for as long as the block lasts. Raises `Missing` where there is none to run."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # the server's own user must be able to enter it
    server = PostgresServer(folder, free_port())
    try:
        _make(folder)
        server.start(*settings)
        server.execute(f"CREATE ROLE \"{ACCESS}\" LOGIN PASSWORD '{SECRET}'", database="postgres")
        server.execute(f'CREATE DATABASE {DATABASE} OWNER "{ACCESS}"', database="postgres")
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _make(folder: Path) -> None:
    owner = _as_owner()
    if "user" in owner:
        os.chown(folder, owner["user"], owner["group"])
    password = folder / "password"
    password.write_text(_ADMIN_SECRET)
    password.chmod(0o644)
    command = [_program("initdb"), "-D", str(folder / "data"), "-U", ADMIN, f"--pwfile={password}"]
    command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **owner)
    if made.returncode:
        raise RuntimeError(f"initdb ended with {made.returncode}: {made.stdout}{made.stderr}")


def _program(name: str) -> str:
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    newest = sorted(versions, key=lambda path: int("0" + path.parent.name.split(".")[0]), reverse=True)
    return program(name, package=PACKAGE, places=[path / name for path in newest])


def _as_owner() -> dict[str, Any]:
    """Whom the server runs as: it refuses to run as root."""
    if os.getuid() != 0:
        return {}
    try:
        owner = pwd.getpwnam("postgres")
    except KeyError:
        raise Missing(
            f"PostgreSQL does not run as root, and there is no user postgres; it comes with {PACKAGE}"
        ) from None
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


def _lives(number: int) -> bool:
    try:
        status = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in {"X", "Z"}


def _end_with(mother: int) -> None:
    """Has Linux end the server at once with whoever started it; after it changed its user, which would undo that."""
    _LIBC.prctl(_DEATH_SIGNAL, signal.SIGQUIT)
    if os.getppid() != mother:  # it died before the line above
        os._exit(1)
