"""A Ray cluster of several nodes on this machine, in a process of its own that obeys what it reads.

Commands, one a line: `add` a node with two slots, `kill` the oldest one as a lost machine dies, `head` the head too.
"""

from __future__ import annotations

import sys

import ray
from ray.cluster_utils import Cluster


def main() -> None:
    """Says the address, then `done` after each command; ends with its input."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = []
    say(cluster.address)
    try:
        for line in sys.stdin:
            match line.strip():
                case "add":
                    nodes.append(cluster.add_node(num_cpus=2))
                case "kill":
                    cluster.remove_node(nodes.pop(0), allow_graceful=False)
                case "head":
                    cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
            say("done")
    finally:
        ray.shutdown()
        cluster.shutdown()


def say(text: str) -> None:
    """Answers with a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
