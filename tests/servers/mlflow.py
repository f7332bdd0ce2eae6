"""A real `mlflow server`, on SQLite or any other database, with its artifacts in a folder or a bucket.

It starts processes of its own, which end with it: `kill` and `freeze` reach them all.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.processes import Missing, answers, free_port, start, wait_until

START = 150.0
"""Seconds for the server to answer; a loaded machine needs 30."""


@dataclass
class MLflowServer:
    """A server that answers at `url`."""

    home: Path
    backend: str
    artifacts: str
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The tracking URI."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the server, after a kill too, and returns when it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", self.backend, "--artifacts-destination", self.artifacts]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        log = self.home / "mlflow-server.log"
        self.process = start(command, log, environment={**quiet, **self.environment}, cwd=self.home)
        wait_until(lambda: answers(f"{self.url}/health"), self.process, log, START)

    def kill(self) -> None:
        """Ends the server and every process of it, as kill -9 does."""
        if self.process is not None:
            self._signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server takes connections and never answers while the block runs."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        for pid in [self.process.pid, *_descendants(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


@contextmanager
def serve(
    home: Path, backend: str | None = None, artifacts: str | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[MLflowServer]:
    """Runs a server for as long as the block lasts, by default on a SQLite file in `home`."""
    if importlib.util.find_spec("mlflow") is None:
        raise Missing("MLflow is not installed; get it with: make env")
    home.mkdir(parents=True, exist_ok=True)
    backend, artifacts = backend or f"sqlite:///{home / 'server.db'}", artifacts or str(home / "artifacts")
    server = MLflowServer(home, backend, artifacts, environment or {})
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def silent() -> Iterator[str]:
    """The URL of a server that takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken: list[socket.socket] = []

        def take() -> None:
            with contextlib.suppress(OSError):  # it was closed
                while True:
                    taken.append(listening.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        for connection in taken:
            connection.close()


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            for child in map(int, children.read_text().split()):
                found += [child, *_descendants(child)]
    return found
