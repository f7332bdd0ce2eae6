"""A real Prefect server for the tests: on a free port, at home in its own folder, and ended by its own pid.

`shared()` is the one that all tests of a session use; it starts when it is first asked for, because that takes some
ten seconds, and ends with the session, also when tests fail.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START = 90.0
"""Seconds for the server to answer; a loaded machine needs 30."""


@dataclass(frozen=True)
class PrefectServer:
    """A server that answers at `api`, and whose database, logs and stored results lie under `home`."""

    api: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to run its flows against this server."""
        return {**_environment(self.home), "PREFECT_API_URL": self.api}

    def rows(self, kind: str, **query: Any) -> list[dict[str, Any]]:
        """Asks for `flow_runs`, `task_runs` or `logs` with one of the API's filters."""
        request = urllib.request.Request(
            f"{self.api}/{kind}/filter",
            data=json.dumps(query).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            rows: list[dict[str, Any]] = json.load(answer)
            return rows

    def wait_for(self, ready: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Returns the first true answer; the server records task runs and logs a moment after they happened."""
        limit = time.monotonic() + seconds
        while not (found := ready()):
            if time.monotonic() > limit:
                raise TimeoutError(f"the server did not come to show it within {seconds} seconds; last: {found!r}")
            time.sleep(0.1)
        return found


@contextmanager
def serve(home: Path, *, port: int | None = None, **settings: str) -> Iterator[PrefectServer]:
    """Runs a server for as long as the block lasts; `settings` are variables of its environment alone.

    With the `port` and the `home` of one that was killed it goes on in its place.
    """
    port = port or _free_port()
    api = f"http://127.0.0.1:{port}/api"
    home.mkdir(parents=True, exist_ok=True)
    start = [sys.executable, "-m", "prefect", "server", "start", "--no-ui"]
    command = [*start, "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**_environment(home), **settings},
            cwd=home,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent,  # noqa: PLW1509  # it makes one system call
        )
    try:
        _wait_until_healthy(process, api, home / "server.log")
        yield PrefectServer(api, home)
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@functools.cache
def shared() -> PrefectServer:
    """The server of this test session."""
    stack = ExitStack()
    atexit.register(stack.close)
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prefect-", ignore_cleanup_errors=True)))
    return stack.enter_context(serve(home))


def _environment(home: Path) -> dict[str, str]:
    """The environment without what a person's own Prefect is set to, so that a test never reaches their server."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    own = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    return {**inherited, **own}


def _end_with_parent() -> None:
    """Has Linux end the server with the thread that started it: tests that are killed cannot end it themselves."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_healthy(process: subprocess.Popen[bytes], api: str, log: Path) -> None:
    limit = time.monotonic() + START
    while time.monotonic() < limit and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{api}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"Prefect's server does not answer; it said:\n{log.read_text(errors='replace')[-4000:]}")
