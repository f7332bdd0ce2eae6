"""A Prefect server of its own for what a whole server is set up for: automations there would move other tests' runs.

Its database is PostgreSQL, as in production, where that is installed, and else SQLite.
"""

from __future__ import annotations

import atexit
import functools
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.prefect_server import PrefectServer, serve
from tests.servers import ACCESS, SECRET, Missing
from tests.servers.postgres import DATABASE
from tests.servers.postgres import serve as serve_postgres

ROOT = Path(__file__).parents[3]
QUICK = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2"}
"""So that a test does not wait for a minute between two looks of the server."""


@functools.cache
def healing() -> PrefectServer:
    """The server of this test session; it ends with the session."""
    stack = ExitStack()
    atexit.register(stack.close)
    database = {}
    try:
        postgres = stack.enter_context(serve_postgres())
        place = f"{ACCESS}:{SECRET}@127.0.0.1:{postgres.port}/{DATABASE}"
        database["PREFECT_API_DATABASE_CONNECTION_URL"] = f"postgresql+asyncpg://{place}"
    except Missing:
        pass
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prefect-", ignore_cleanup_errors=True)))
    return stack.enter_context(serve(home, **QUICK, **database))


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m tune_tasks_prefect` against that server."""
    return subprocess.run(
        [sys.executable, "-m", "tune_tasks_prefect", *arguments],
        env={**healing().environment, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def client() -> Any:
    """A client of that server."""
    from prefect.client.orchestration import SyncPrefectClient

    return SyncPrefectClient(healing().api)
