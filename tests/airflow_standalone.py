"""A real `airflow standalone` for the tests, spoken to over its REST API: its processes may be killed and come back.

It lives in a session of its own, that is how all that belongs to it is found, and ends with whoever started it, however
that ends. As a program this runs what it reads, a command of Airflow on each line: `standalone`, `triggerer`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers.processes import ROOT, free_port, wait_until
from tune_tasks.execution.guard import family

START = 180.0
"""Seconds until all of it is healthy; two busy cores need 100."""
REACTION = 90.0
"""Seconds in which Airflow does what it was asked."""
PARTS = {"metadatabase", "scheduler", "triggerer", "dag_processor"}
_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"


@dataclass
class Airflow:
    """An Airflow with a home and a database of its own; it can be started again after a kill."""

    home: Path
    bundles: Mapping[str, Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Further settings, such as another database."""
    port: int = field(default_factory=free_port)
    _secret: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)
    _token: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts all of it, after a kill too, and returns when every part is healthy."""
        log = self.home / "standalone.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.airflow_standalone"],
                cwd=ROOT,
                env=self._settings(),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        self._command("standalone")
        wait_until(self._is_healthy, self._process, log, START)  # type: ignore[arg-type]  # its text is not read

    def kill(self) -> None:
        """Ends every process of it at once, as kill -9 does."""
        if self._process is not None:
            end(self._process.pid)
            self._process.communicate()
            self._process = None

    def kill_triggerer(self) -> None:
        """Ends the triggerer and what it started, as kill -9 does; nothing starts it again."""
        send(self.triggerers(), signal.SIGKILL)

    def triggerers(self) -> set[int]:
        """The processes of every triggerer, and those that they have started."""
        assert self._process is not None
        command = b"airflow\0triggerer"
        found = {pid for pid in members(self._process.pid) if command in _read(f"/proc/{pid}/cmdline")}
        assert found, "there is no triggerer"
        return set(family(found))

    def start_triggerer(self) -> None:
        """Starts a further triggerer, and returns at once."""
        self._command("triggerer")

    def memory(self) -> int:
        """Bytes that its processes have, each page that several share once."""
        assert self._process is not None
        rollups = [_read(f"/proc/{pid}/smaps_rollup").decode() for pid in members(self._process.pid)]
        lines = [line for rollup in rollups for line in rollup.splitlines() if line.startswith("Pss:")]
        return sum(int(line.split()[1]) for line in lines) * 1024

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """One request to the REST API; gives the JSON that it answers."""
        import httpx  # the process that is run by name needs none

        end_of_patience = time.monotonic() + 20
        while True:
            try:
                return self._ask(method, path, body, query)
            except (httpx.TransportError, httpx.HTTPStatusError) as error:
                answered = isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500
                if answered or time.monotonic() > end_of_patience:  # SQLite is locked for a moment now and then
                    raise
                time.sleep(0.5)

    def trigger(self, dag: str, **conf: Any) -> DagRun:
        """Starts a run of a DAG, which is waited for until it has been read."""
        import httpx

        def is_known() -> bool:
            with contextlib.suppress(httpx.HTTPStatusError):
                return bool(self.ask("GET", f"/dags/{dag}"))
            return False

        until(is_known, lambda: f"{dag} is not there; {self.ask('GET', '/importErrors')}")
        run = f"{dag}-{secrets.token_hex(4)}"
        self.ask("POST", f"/dags/{dag}/dagRuns", {"dag_run_id": run, "logical_date": None, "conf": conf})
        return DagRun(self, dag, run)

    def slots(self) -> dict[str, int]:
        """How many slots of the default pool are in use, by kind: `running`, `queued`, `deferred`."""
        pool = self.ask("GET", "/pools/default_pool")
        return {kind: pool[f"{kind}_slots"] for kind in ("running", "queued", "deferred")}

    @functools.cached_property
    def _client(self) -> Any:
        import httpx

        return httpx.Client(base_url=self.url, headers={"Accept": "application/json"}, timeout=20, trust_env=False)

    def _ask(self, method: str, path: str, body: Any, query: Mapping[str, Any]) -> Any:
        import httpx

        if self._token is None:  # every user is an administrator
            self._token = self._client.get("/auth/token").raise_for_status().json()["access_token"]
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = self._client.request(method, f"/api/v2{path}", json=body, params=query, headers=headers)
        if answer.is_error:
            raise httpx.HTTPStatusError(answer.text, request=answer.request, response=answer)
        return answer.json()

    def _is_healthy(self) -> bool:
        import httpx

        with contextlib.suppress(httpx.HTTPError):
            health = self._client.get("/api/v2/monitor/health").json()
            return {name for name, part in health.items() if part and part["status"] == "healthy"} >= PARTS
        return False

    def _command(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _settings(self) -> dict[str, str]:
        """The environment of every process of it; nothing of a person's own Airflow is in it."""
        inherited = {name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("AIRFLOW")}
        bundles = [
            {"name": name, "classpath": _BUNDLE, "kwargs": {"path": str(path)}} for name, path in self.bundles.items()
        ]
        settings = {
            "API__BASE_URL": self.url,
            "API__HOST": "127.0.0.1",
            "API__PORT": str(self.port),
            "API__WORKERS": "1",
            "API_AUTH__JWT_SECRET": self._secret,
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__PARALLELISM": "2",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",  # no file changes here
            "DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
            "TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",  # then another may take its triggers over
        }
        return {
            **inherited,
            **{f"AIRFLOW__{name}": value for name, value in settings.items()},
            "AIRFLOW_HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # standalone starts `airflow` by name
            "RAY_USAGE_STATS_ENABLED": "0",
            **self.environment,
        }


@dataclass(frozen=True)
class DagRun:
    """A run of a DAG."""

    airflow: Airflow
    dag: str
    id: str

    @property
    def state(self) -> str:
        """How the whole run stands."""
        return str(self.airflow.ask("GET", self._path)["state"])

    def task(self, name: str) -> dict[str, Any]:
        """How a task stands: its `state`, `try_number`, `pid`, `trigger` and more."""
        found: dict[str, Any] = self.airflow.ask("GET", f"{self._path}/taskInstances/{name}")
        return found

    def reaches(self, task: str, state: str, attempt: int | None = None) -> dict[str, Any]:
        """Returns the task as soon as it is in a state, in that attempt where one is given."""
        seen: list[dict[str, Any]] = [{}]

        def has() -> bool:
            seen.append(self.task(task))
            return seen[-1]["state"] == state and attempt in {None, seen[-1]["try_number"]}

        until(has, lambda: f"{task} is {seen[-1].get('state')} in try {seen[-1].get('try_number')}; {self._told(task)}")
        return seen[-1]

    def finish(self, seconds: float = REACTION) -> str:
        """The state in which the run ends."""
        until(lambda: self.state in {"success", "failed"}, lambda: f"{self.id} is {self.state}", seconds)
        return self.state

    def result(self, task: str) -> Any:
        """What a task returned, as the database has it."""
        value = self.airflow.ask("GET", f"{self._path}/taskInstances/{task}/xcomEntries/return_value")["value"]
        return json.loads(value) if isinstance(value, str) else value

    def log(self, task: str, attempt: int) -> str:
        """What a task and its trigger said in one attempt."""
        found = self.airflow.ask("GET", f"{self._path}/taskInstances/{task}/logs/{attempt}", full_content=True)
        lines = found["content"]
        return "\n".join(str(line["event"]) if isinstance(line, dict) else str(line) for line in lines)

    def clear(self, task: str) -> None:
        """Has a task run once more, as the button does."""
        body = {"dry_run": False, "dag_run_id": self.id, "task_ids": [task], "only_failed": False}
        self.airflow.ask("POST", f"/dags/{self.dag}/clearTaskInstances", body)

    def mark(self, task: str, state: str) -> None:
        """Puts a task into a state, as the buttons do."""
        self.airflow.ask("PATCH", f"{self._path}/taskInstances/{task}", {"new_state": state})

    @property
    def _path(self) -> str:
        return f"/dags/{self.dag}/dagRuns/{self.id}"

    def _told(self, task: str) -> str:
        """The ends of a task's logs."""
        attempts = range(1, self.task(task)["try_number"] + 1)
        return "\n".join(f"try {attempt}: {self.log(task, attempt)[-2000:]}" for attempt in attempts)


@contextmanager
def standalone(
    home: Path, bundles: Mapping[str, Path], environment: Mapping[str, str] | None = None
) -> Iterator[Airflow]:
    """Runs an Airflow with the DAGs of these folders for as long as the block lasts."""
    airflow = Airflow(home, bundles, environment or {})
    try:
        airflow.start()
        yield airflow
    finally:
        airflow.kill()


def until(reached: Callable[[], bool], told: Callable[[], str] = lambda: "", seconds: float = REACTION) -> None:
    """Returns as soon as something is so; fails with what is `told` where it takes too long."""
    limit = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < limit, f"it never came to that: {told()}"
        time.sleep(0.3)


def members(session: int) -> set[int]:
    """The processes of a session that live."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _read(f"{entry}/stat").rpartition(b")")[2].split()
        if fields and int(fields[3]) == session and fields[0] != b"Z":
            found.add(int(entry.name))
    return found


def send(processes: Iterable[int], what: signal.Signals) -> None:
    """Sends a signal to those of the processes that are still there."""
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


def end(session: int) -> None:
    """Kills all of a session but this process, and what they started last too."""
    while left := members(session) - {os.getpid()}:
        send(left, signal.SIGKILL)
        time.sleep(0.05)


def _read(path: str) -> bytes:
    """A file of /proc; empty where the process has gone."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def main() -> None:
    """Runs what it reads, and ends all of it with its input, which ends with whoever holds the other end."""
    airflow = str(Path(sys.executable).with_name("airflow"))
    for line in sys.stdin:
        subprocess.Popen([airflow, *line.split()], stdin=subprocess.DEVNULL)
    end(os.getpid())


if __name__ == "__main__":
    main()
