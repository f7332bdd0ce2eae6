"""Addresses where no Ray answers, or none any more, for a driver that is a process of its own."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.execution.test_ray_nodes import driver
from tune_tasks.testing.driving import DEADLINE

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_that_never_answers_is_unavailable(tmp_path: Path, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}127.0.0.1:{silent.getsockname()[1]}"
        _, err = driver(address, tmp_path / "study", patience=1.0).communicate(timeout=DEADLINE)
    assert f"Unavailable: execution.address: no Ray answers at '{address}': timed out" in err, err


def test_an_address_where_something_else_answers_is_unavailable(tmp_path: Path) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        _, err = driver(address, tmp_path / "study").communicate(timeout=DEADLINE)
        server.shutdown()
    assert f"what listens at {address} is no Ray" in err, err
