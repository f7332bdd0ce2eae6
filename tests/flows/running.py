"""Runs the provider's flow `tune` as a user does: in a process of its own, against the test session's real server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.prefect_server import PrefectServer, shared

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, sys
from tune_tasks_prefect import tune
tune(sys.argv[1], **json.loads(sys.argv[2]))
"""


def run_flow(spec_path: Path | str, **parameters: Any) -> None:
    """Runs the flow `tune` for a spec file to its end; raises `AssertionError` with its output where it fails."""
    finish(start_flow(spec_path, **parameters))


def start_flow(spec_path: Path | str, *, seconds: float = 0.0, **parameters: Any) -> subprocess.Popen[str]:
    """Starts the flow and returns at once; `seconds` is how long each step of a trial takes (see `tests.studies`)."""
    return start("-c", PROGRAM, str(spec_path), json.dumps(parameters), STEP_SECONDS=str(seconds))


def start(
    *arguments: str, cwd: Path | None = None, server: PrefectServer | None = None, **environment: str
) -> subprocess.Popen[str]:
    """Starts Python against a server, by default the test session's."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**(server or shared()).environment, **environment},
        cwd=cwd or ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], seconds: float = 240.0) -> str:
    """Waits for a process to end well and returns what it printed; ends it where it takes too long."""
    try:
        output, _ = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0, output
    return output


def complete(run: FlowRun, process: subprocess.Popen[str]) -> None:
    """Waits for a process that executes a run to its end; raises `AssertionError` with its output where it fails."""
    output = finish(process)
    assert run.state == "COMPLETED", output


def until(reached: Callable[[], Any], seconds: float = 90.0) -> Any:
    """Waits until something is so, and returns what it said then."""
    end = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.1)
    return found


@dataclass(frozen=True)
class Deployed:
    """A deployment of the flow `tune` on a server, which whoever likes may execute."""

    server: PrefectServer
    id: str

    @classmethod
    def on(cls, server: PrefectServer, name: str, executed: str = "tune") -> Deployed:
        """Makes one, or finds the one of that name; `executed` is what the flow is called in its module."""
        flow = ask(server, "POST", "/flows/", name="tune")["id"]
        entrypoint = f"tune_tasks_prefect.flows.{executed}"
        here = [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}]
        deployment = {"name": name, "flow_id": flow, "entrypoint": entrypoint, "pull_steps": here}
        return cls(server, ask(server, "POST", "/deployments/", **deployment)["id"])

    def run(self, **parameters: Any) -> FlowRun:
        """Asks for a run."""
        made = ask(self.server, "POST", f"/deployments/{self.id}/create_flow_run", parameters=parameters)
        return FlowRun(self.server, made["id"])


@dataclass(frozen=True)
class FlowRun:
    """A flow run on a server, and what may be done to it."""

    server: PrefectServer
    id: str

    def read(self) -> dict[str, Any]:
        """As the server has it."""
        found: dict[str, Any] = ask(self.server, "GET", f"/flow_runs/{self.id}")
        return found

    @property
    def state(self) -> str:
        """The type of its state."""
        return str(self.read()["state_type"])

    def set(self, state: str, name: str | None = None, *, force: bool = False) -> None:
        """Sets its state as a person, an automation or a runner does."""
        wanted = {"type": state, **({"name": name} if name else {})}
        ask(self.server, "POST", f"/flow_runs/{self.id}/set_state", state=wanted, force=force)

    def again(self) -> None:
        """Has it begun again, as an automation does after a crash, and a runner that takes it up."""
        self.set("SCHEDULED", "AwaitingRetry", force=True)
        self.set("PENDING", force=True)

    def execute(self, **environment: str) -> subprocess.Popen[str]:
        """Executes it in a process of its own, as a runner does."""
        return start("-m", "prefect.engine", server=self.server, PREFECT__FLOW_RUN_ID=self.id, **environment)

    def history(self) -> list[str]:
        """The types of the states that it has had."""
        return [row["type"] for row in ask(self.server, "GET", f"/flow_run_states/?flow_run_id={self.id}")]

    def logged(self) -> list[str]:
        """What it and its tasks logged, the oldest first."""
        query = {"logs": {"flow_run_id": {"any_": [self.id]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return [row["message"] for row in self.server.rows("logs", **query)]


def ask(server: PrefectServer, method: str, path: str, **body: Any) -> Any:
    """One request to the server's API."""
    request = urllib.request.Request(
        f"{server.api}{path}",
        method=method,
        data=json.dumps(body).encode() if body else None,
        headers={"Content-Type": "application/json"},
    )
    for left in reversed(range(20)):
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or not left:  # SQLite is locked for a moment
                raise
            time.sleep(0.5)
    raise AssertionError
