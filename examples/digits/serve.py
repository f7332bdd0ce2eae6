"""Serves the champion of the digits study for a moment: a Ray of its own, deploy, questions over HTTP, and away again.

A team has a Ray cluster that stays, and runs `tune-tasks deploy` and `tune-tasks undeploy` alone.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
STUDY = str(HERE / "study.yaml")
PORT = "6399"
RAY = shutil.which("ray", path=sysconfig.get_path("scripts")) or "ray"


def run(*command: str) -> None:
    """Runs a command of this environment beside the cluster; ends everything where it fails."""
    subprocess.run([sys.executable, *command], env=ENVIRONMENT, check=True)


ENVIRONMENT = {
    **os.environ,
    "RAY_ADDRESS": f"127.0.0.1:{PORT}",
    "RAY_AUTH_MODE": "token",  # nobody else on this machine may use the cluster
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

if __name__ == "__main__":
    head = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={PORT}", "--num-cpus=4"]
    cluster = subprocess.Popen([*head, "--include-dashboard=false"], env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    try:
        run("-m", "tune_tasks", "deploy", STUDY)
        run(str(HERE / "ask.py"))
        run("-m", "tune_tasks", "undeploy", STUDY)
    finally:
        cluster.terminate()
        cluster.wait()
