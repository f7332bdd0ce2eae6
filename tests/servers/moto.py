"""Moto's S3 server: an emulator in Python that keeps the conditions of S3 and starts in a second."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.processes import Missing, answers, free_port, running, wait_until
from tests.servers.s3 import S3Server


@contextmanager
def moto(home: Path) -> Iterator[S3Server]:
    """Runs a server that keeps its objects in memory."""
    if importlib.util.find_spec("moto") is None:
        raise Missing("moto is not installed; get it with: make env")
    port = free_port()
    server, log = S3Server(f"http://127.0.0.1:{port}"), home / "moto.log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, log, environment={"S3_IGNORE_SUBDOMAIN_BUCKETNAME": "true"}) as process:
        wait_until(lambda: answers(f"{server.url}/moto-api/"), process, log)
        server.make_bucket()
        yield server
