"""Ray's Jobs API: what a dashboard answers, in words that say what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

LOOK = """
import sys
from tune_tasks.execution.jobs import Jobs
Jobs(sys.argv[1]).look("any")
"""


class Refusing(BaseHTTPRequestHandler):
    """A dashboard that asks for a token, as Ray 2.60 answers one without it, or with another one."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "35")
        self.end_headers()
        self.wfile.write(b"Forbidden: Invalid authentication t")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_cluster_that_asks_for_another_token_says_where_it_is_set(refusing: str) -> None:
    done = subprocess.run([sys.executable, "-c", LOOK, refusing], capture_output=True, text=True, check=False)
    told = done.stderr.strip().splitlines()[-1]
    assert "ConfigError: execution.address: the Ray at" in told
    assert "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here as they are on the cluster" in told
