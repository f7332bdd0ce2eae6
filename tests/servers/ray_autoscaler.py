"""A Ray whose autoscaler adds nodes to this machine: Ray's own provider for its tests, on ports of its own.

Ray's `AutoscalingCluster` would end every other Ray of the machine first, and needs a file that its wheels lack.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.servers.processes import free_port
from tune_tasks.execution.guard import family

HEAD = "f" * 51 + "00000"
"""The id of the head, as the provider knows it."""
_UNUSED = ("auth", "docker", "file_mounts")
_EMPTY = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
)


@contextmanager
def autoscaler(folder: Path, cpus: int, most: int) -> Iterator[str]:
    """Runs a head with `cpus`, to which up to `most` nodes of as many are added; gives its address."""
    from ray._private.services import get_node_ip_address

    port, place = free_port(), folder / "autoscaler.json"
    place.write_text(json.dumps(_config(f"{get_node_ip_address()}:{port}", cpus, most)))
    ray = Path(sys.executable).with_name("ray")
    command = [ray, "start", "--head", "--block", f"--port={port}", f"--num-cpus={cpus}", "--include-dashboard=false"]
    command += [f"--autoscaling-config={place}", f"--ray-client-server-port={free_port()}"]
    with (folder / "ray.txt").open("wb") as output:
        process = subprocess.Popen(command, env=_environment(), stdout=output, stderr=output, start_new_session=True)
    try:
        _wait(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        for pid in family({process.pid}):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _config(address: str, cpus: int, most: int) -> dict[str, Any]:
    provider = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
    head = {"resources": {"CPU": cpus}, "node_config": {}, "max_workers": 0}
    small = {"resources": {"CPU": cpus}, "node_config": {}, "min_workers": 0, "max_workers": most}
    return {
        "cluster_name": "test",
        "max_workers": most,
        "provider": {
            "type": "external",
            "module": provider,
            "use_node_id_as_ip": True,  # they all have the address of this machine
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": HEAD,
            "gcs_address": address,
        },
        "available_node_types": {"ray.head.default": head, "small": small},
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 0.1,
        "file_mounts_sync_continuously": False,
        **{name: {} for name in _UNUSED},
        **{name: [] for name in _EMPTY},
    }


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "disabled"),  # a Ray that ran here before has set it to token
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
    }


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise AssertionError("the head did not start")
