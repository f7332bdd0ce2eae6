"""The Ray that trials run on: the one that this process is attached to, one at an address, or one of its own.

This module must not shut down a Ray that it did not start.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.execution import guard
from tune_tasks.spec import Resources

logger = logging.getLogger(__name__)

_KNOCK_SECONDS = 10.0
_EMBEDDED = {
    # What a trial started and left behind goes with its worker; without this, Ray leaves it running.
    "RAY_process_group_cleanup_enabled": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


_guards: list[subprocess.Popen[bytes]] = []


def attach(address: str | None) -> bool:
    """Attaches this process to a Ray; returns whether that must be undone with `detach`.

    Takes the one that it is attached to already, else the one at `address`, else starts one that ends with this
    process, also where that is killed. Raises `Unavailable` where no Ray answers.
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
        _knock(address)
        ray.init(address=address, **quiet)
    except OSError as error:
        raise Unavailable(f"execution.address: no Ray answers at {address!r}: {error}") from error
    return True


def detach() -> None:
    """Leaves the Ray; ends it where this process started it."""
    import ray

    ray.shutdown()
    while _guards:
        _guards.pop().communicate()


def _knock(address: str) -> None:
    """Tries whether anything listens: Ray itself would go on trying for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


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


def slots(resources: Resources, concurrency: int | None) -> int:
    """How many trials of this size the cluster's nodes hold at once, at most `concurrency`.

    Raises `ConfigError` where no node can hold one.
    """
    import ray

    need = {"CPU": resources.cpu, "GPU": resources.gpu, "memory": float(resources.memory or 0), **resources.custom}
    need = {name: amount for name, amount in need.items() if amount > 0}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # Ray's
    if not need:  # trials that ask for nothing: as many as there are cores
        return concurrency or max(1, int(sum(node.get("CPU", 0) for node in nodes)))
    fit = sum(_fit(need, node) for node in nodes)
    if not fit:
        raise ConfigError(f"resources: no node can hold a trial that needs {_shown(need)}; {_offer(need, nodes)}")
    return min(fit, concurrency or fit)


def _quieten() -> None:
    """Has what Ray says about lost workers logged: it prints it on stdout, where a step's JSON goes.

    There is no option for that (2.44 to 2.60); where the function that prints has gone, nothing is changed.
    """
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = _log


def _log(data: Mapping[str, Any], *_: Any, **__: Any) -> None:
    logger.info("Ray: %s", "\n".join(data.get("lines", ())))


def _fit(need: Mapping[str, float], node: Mapping[str, float]) -> int:
    return min(_times(name, amount, node.get(name, 0.0)) for name, amount in need.items())


def _times(name: str, amount: float, total: float) -> int:
    """How often an amount fits; a fraction of a GPU must come from a single one."""
    if name == "GPU" and amount < 1:
        return int(total) * int(1 / amount + 1e-9)
    return int(total / amount + 1e-9)


def _offer(need: Mapping[str, float], nodes: list[dict[str, float]]) -> str:
    most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in need}
    return f"the most that a node has is {_shown(most)}"


def _shown(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in amounts.items())


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
