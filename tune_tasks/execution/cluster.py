"""The Ray that trials run on: the one that this process is attached to, one at an address, or one of its own.

This module must not shut down a Ray that it did not start.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tune_tasks.errors import ConfigError, TuneError, Unavailable
from tune_tasks.execution import guard
from tune_tasks.execution.capacity import Amounts

logger = logging.getLogger(__name__)

_KNOCK_SECONDS = 8.0
_CLIENT_PORT = 10001
"""Ray's own, of an address ray://host."""
_SETTINGS = b"\x04"
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _SETTINGS + bytes(5)
"""The beginning of each HTTP/2 connection (RFC 9113, section 3.4): the other side answers with its settings."""
_EMBEDDED = {
    # What a trial started and left behind goes with its worker; without this, Ray leaves it running.
    "RAY_process_group_cleanup_enabled": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


_guards: list[subprocess.Popen[bytes]] = []


ASKS = "if it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here as they are on the cluster"
"""What may keep a process out of a cluster that is there; Ray says so in its log alone."""


def attach(address: str | None, runtime_env: Mapping[str, Any] | None = None) -> bool:
    """Attaches this process to a Ray; returns whether that must be undone with `detach`.

    Takes the one that it is attached to already, else the one at `address`, else starts one that ends with this
    process, also where that is killed. `runtime_env` is for the one at an address. Raises `Unavailable` where no Ray
    answers, and `ConfigError` where its version, or that of its Python, is another one.
    """
    import ray

    if ray.is_initialized():
        return False
    _quieten()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "tune_tasks"}
    if address is None or address == "local":
        with _environment(_EMBEDDED):
            started: Any = ray.init(address="local", include_dashboard=False, **quiet)
        _guard(started.address_info["session_dir"])
        return True
    try:
        if place := _place(address):
            knock(place, _KNOCK_SECONDS)
        ray.init(address=address, runtime_env=dict(runtime_env or {}) or None, **quiet)
    except Exception as error:
        raise _refused(address, error) from error
    return True


def _refused(address: str, error: Exception) -> TuneError:
    """Why this process could not be attached: another version is for good, all else may pass."""
    text = " ".join(str(error).split())
    if re.search(r"versions? (mismatch|differ)", text, re.IGNORECASE):
        return ConfigError(f"execution.address: Ray at {address!r} and this process do not match. {text}")
    if isinstance(error, ValueError):  # what Ray says of a runtime environment
        return ConfigError(f"environment: Ray at {address!r} refuses it: {text}")
    token = f"; {ASKS}" if "Failed to connect" in text else ""  # after a greeting: something is there
    return Unavailable(f"execution.address: no Ray answers at {address!r}: {text}{token}")


def detach() -> None:
    """Leaves the Ray; ends it where this process started it."""
    import ray

    ray.shutdown()
    while _guards:
        _guards.pop().communicate()


def knock(place: str, seconds: float) -> None:
    """Tries whether a Ray answers at host:port; it greets as HTTP/2 does. Raises `OSError` where none does.

    Ray itself would go on trying for minutes, also where something listens and never says a word.
    """
    host, _, port = place.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds) as connection:
        if os.environ.get("RAY_USE_TLS", "0") not in {"0", "false"}:
            return  # it would not understand a greeting in plain text
        connection.sendall(_GREETING)
        answer = connection.recv(9)
    if answer[3:4] != _SETTINGS:
        raise ConnectionError(f"what listens at {place} is no Ray")


def _place(address: str) -> str | None:
    """The host:port of an address; None for one that Ray must find out itself, as auto."""
    scheme, _, rest = address.rpartition("://")
    host, _, port = rest.rpartition(":")
    if port.isdigit():
        return rest
    return f"{rest}:{_CLIENT_PORT}" if scheme == "ray" and not host else None


def _guard(session: str) -> None:
    """Starts the process that ends what Ray leaves behind; its own session keeps Ctrl-C away from it."""
    _guards.append(
        subprocess.Popen(  # noqa: S603  # our own file
            [sys.executable, "-I", "-S", guard.__file__, session],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    )


def nodes() -> dict[str, Amounts]:
    """What each node that lives has, by Ray's id."""
    import ray

    listed: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's
    return {node["NodeID"]: node["Resources"] for node in listed if node["Alive"]}


def places() -> dict[str, str]:
    """Where the raylet of each node that lives listens, host:port, by Ray's id."""
    import ray

    listed: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's
    alive = (node for node in listed if node["Alive"])
    return {node["NodeID"]: f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}" for node in alive}


def draining() -> dict[str, float | None]:
    """The nodes that go away with notice, by Ray's id, and when, in seconds since the epoch; None: it does not say."""
    try:
        from ray._private.state import state

        listed: dict[str, int] = state.get_draining_nodes()
    except Exception:  # noqa: BLE001  # not public: a Ray without it, or a client's, has none that are known
        return {}
    return {node: deadline / 1000 if deadline else None for node, deadline in listed.items()}


def to_come() -> list[Amounts]:
    """What a node would have of each kind that the autoscaler may add, where one says so."""
    try:
        from ray._private.state import state

        groups = state.get_cluster_config().node_group_configs
        return [dict(group.resources) for group in groups if group.max_count]
    except Exception:  # noqa: BLE001  # as above, and None where there is no autoscaler
        return []


def head(address: str | None) -> str:
    """Where the head of the Ray listens that this process is attached to, at `address`: host:port."""
    import ray

    if address is not None and address.startswith("ray://") and (place := _place(address)):
        return place
    return str(ray.get_runtime_context().gcs_address)


def _quieten() -> None:
    """Has what Ray says about lost workers logged: it prints it on stdout, where a step's JSON goes.

    There is no option for that (2.44 to 2.60); where the function that prints has gone, nothing is changed.
    """
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = _log


def _log(data: Mapping[str, Any], *_: Any, **__: Any) -> None:
    logger.info("Ray: %s", "\n".join(data.get("lines", ())))


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets variables for the processes that are started meanwhile; those that are set already stay."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
