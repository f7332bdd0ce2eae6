"""A Ray cluster of several nodes on this machine, in a process of its own that obeys what it reads.

As a program it takes commands, one a line: `add CPUS` a node, `kill` the oldest added one as a lost machine dies,
`freeze` and `thaw` that one's processes, `drain SECONDS` it, `head` kills the head too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.servers.processes import ROOT, free_port
from tune_tasks.execution.guard import family

HEAD = {
    "include_dashboard": False,
    # A killed node is seen at once, as its port answers no more, instead of after 13 s; a frozen one after 20 s still.
    "_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 2},
}
"""How the head of a cluster starts that a test may break."""


class Nodes:
    """A cluster that a test may break; it ends with the process that started it."""

    def __init__(self, *, cpus: int = 0, dashboard: int | None = None) -> None:
        """`cpus` of the head; `dashboard`: the port of the one that takes jobs, if there shall be one."""
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.ray_nodes", str(cpus), str(dashboard or "")],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,  # the entrypoint of a job is `python` of this environment
        )
        self.address = self._answer()
        self.dashboard = f"http://127.0.0.1:{dashboard}"

    def __call__(self, command: str) -> str:
        """Obeyed when this returns; gives the id of the node that it was about."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        done, _, node = self._answer().partition(": ")
        assert done == "done"
        return node

    def end(self) -> None:
        """Ends whatever is left of it."""
        try:
            self._process.communicate(timeout=60)
        finally:
            self._process.kill()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith(("cluster: ", "done: ")):
                return line.strip().removeprefix("cluster: ")
        raise AssertionError("the cluster has gone")


@contextmanager
def cluster(*, cpus: int = 0, dashboard: int | None = None) -> Iterator[Nodes]:
    """Runs a cluster for as long as the block lasts."""
    nodes = Nodes(cpus=cpus, dashboard=dashboard)
    try:
        yield nodes
    finally:
        nodes.end()


def main(cpus: int, dashboard: int | None) -> None:
    """Says the address, then `done` after each command; ends with its input."""
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": cpus, **HEAD}
    if dashboard is not None:  # the agent takes the jobs; its usual port may be that of another Ray on this machine
        head |= {"include_dashboard": True, "dashboard_port": dashboard, "dashboard_agent_listen_port": free_port()}
    started = Cluster(initialize_head=True, head_node_args=head)
    added = []
    say(f"cluster: {started.address}")
    try:
        for line in sys.stdin:
            command, *values = line.split()
            match command:
                case "add":
                    added.append(started.add_node(num_cpus=int(values[0]) if values else 2))
                    node = added[-1]
                case "kill":
                    node = added.pop(0)
                    started.remove_node(node, allow_graceful=False)
                case "freeze" | "thaw":
                    node = added[0]
                    signal_all(node, "STOP" if command == "freeze" else "CONT")
                case "drain":
                    node = added[0]
                    drain(started.address, node.node_id, int(values[0]))
                case "head":
                    node = started.head_node
                    kill(node)
                case _:
                    raise ValueError(line)
            say(f"done: {node.node_id}")
    finally:
        ray.shutdown()
        started.shutdown()


def signal_all(node: Any, name: str) -> None:
    """Sends a signal to a node's raylet and to everything that it started."""
    for process in raylets(node):
        os.kill(process, getattr(signal, f"SIG{name}"))


def kill(head: Any) -> None:
    """Ends all processes of a head, the drivers of jobs among them, as they go with their machine."""
    processes = raylets(head)
    head.kill_all_processes(check_alive=False, allow_graceful=False)
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def raylets(node: Any) -> set[int]:
    """A node's raylet and all that it started."""
    (raylet,) = node.all_processes["raylet"]
    return family({raylet.process.pid})


def drain(address: str, node: str, seconds: int) -> None:
    """Tells the cluster that a node goes away, as a provider of preemptible machines does."""
    ray = str(Path(sys.executable).with_name("ray"))
    which = ["--address", address, "--node-id", node, "--deadline-remaining-seconds", str(seconds)]
    why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    subprocess.run([ray, "drain-node", *which, *why], check=True, capture_output=True)


def say(text: str) -> None:
    """Answers with a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2] else None)
