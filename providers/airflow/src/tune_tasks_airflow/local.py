"""A Ray cluster on the machine of the worker for one run of a DAG: for tests, and where there is one machine.

All tasks must run on that machine, as with the LocalExecutor, and outlive one another there. This module must not touch
another Ray: it knows its processes by a mark in their environment and by its folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from tune_tasks_airflow.clusters import ClusterGroup, cluster_group, patient
from tune_tasks_airflow.operators import failing_at_once

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

MARK = "TUNE_TASKS_LOCAL_CLUSTER"
_PORTS = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
_HOST = "127.0.0.1"
"""Of the dashboard, which takes the jobs. Ray's other ports are open to whoever reaches the machine."""
_ADDRESS = "address"
_GRACE = 3.0
"""Seconds in which its processes may end by themselves."""
_GIVE_UP = 60.0
_LOOKS = 5
"""That find nothing until all have ended: one that was just forked has lost its mark, and opened no file yet."""


@contextmanager
def local_cluster(
    *,
    group_id: str = "cluster",
    num_cpus: int | str | None = None,
    start: Mapping[str, Any] | None = None,
    stop: Mapping[str, Any] | None = None,
) -> Iterator[ClusterGroup]:
    """Gives the tasks of the block a Ray on this machine, which is stopped when all are over, however they ended.

    `num_cpus`, by default those of the machine; `start` and `stop` are further arguments of the two tasks. The
    cluster's `address` is that of its Jobs API, for the launch: `launch={"address": cluster.address}`.
    """

    def begin(name: XComArg) -> BaseOperator:
        return StartLocalRayOperator(task_id="start", cluster=name, num_cpus=num_cpus, **(start or {}))

    def end(name: XComArg) -> BaseOperator:
        return StopLocalRayOperator(task_id="stop", cluster=name, **patient(stop))

    with cluster_group(group_id, begin, end) as group:
        yield group


class StartLocalRayOperator(BaseOperator):
    """Starts a head that takes jobs and returns its address once it answers; a retry finds the one that runs."""

    template_fields: Sequence[str] = ("cluster", "num_cpus")

    def __init__(
        self,
        *,
        cluster: str | XComArg,
        num_cpus: int | str | None = None,
        ready_within: float = 120.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.num_cpus = num_cpus
        self.ready_within = ready_within

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002  # Airflow gives it
        """Starts it, unless it runs."""
        with failing_at_once():
            address = LocalRay(str(self.cluster)).start(self.num_cpus, self.ready_within)
        self.log.info("Ray takes jobs at %s", address)
        return {"address": address, "name": str(self.cluster)}


class StopLocalRayOperator(BaseOperator):
    """Ends the processes of the cluster of that name, and what they started; content where there are none."""

    template_fields: Sequence[str] = ("cluster",)

    def __init__(self, *, cluster: str | XComArg, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def execute(self, context: Context) -> None:  # noqa: ARG002  # as above
        """Ends them."""
        self.log.info("ended %d processes of %s", LocalRay(str(self.cluster)).stop(), self.cluster)


class LocalRay:
    """The Ray of one name on this machine."""

    def __init__(self, name: str) -> None:
        self.name = name
        short = name.rpartition("-")[2]  # Ray puts sockets below it, whose paths may have 107 characters
        self.folder = Path(tempfile.gettempdir()) / f"tune-{os.getuid()}-{short}"

    def start(self, num_cpus: int | str | None, seconds: float) -> str:
        """Where it takes jobs. Raises `ConfigError` where there is no Ray, `Unavailable` where it does not answer."""
        known = self.folder / _ADDRESS
        if known.exists() and self.processes() and self._answers(address := known.read_text(encoding="utf-8")):
            return address
        self.stop()
        self.folder.mkdir(mode=0o700)
        ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        address = f"http://{_HOST}:{ports['dashboard-port']}"
        known.write_text(address, encoding="utf-8")
        self._run(
            [*(f"--{name}={port}" for name, port in ports.items()), *([f"--num-cpus={num_cpus}"] * bool(num_cpus))]
        )
        self._wait(address, seconds)
        return address

    def stop(self) -> int:
        """Ends every process of the cluster, and gives how many there were; nothing of it stays on the disk.

        Raises `Unavailable` where one does not end even when it is killed, since a disk that is away holds it.
        """
        from tune_tasks.errors import Unavailable

        ended: set[int] = set()
        began, unseen = time.monotonic(), 0
        while unseen < _LOOKS:
            found = self.processes()
            unseen = 0 if found else unseen + 1
            age = time.monotonic() - began
            if found and age > _GIVE_UP:
                raise Unavailable(f"processes of {self.name} do not end: {sorted(found)}")
            number = signal.SIGKILL if age > _GRACE else signal.SIGTERM
            for process in found if number == signal.SIGKILL else found - ended:
                with suppress(ProcessLookupError):
                    os.kill(process, number)
            ended |= found
            time.sleep(0.1)
        shutil.rmtree(self.folder, ignore_errors=True)
        return len(ended)

    def processes(self) -> set[int]:
        """The cluster's processes, whoever is their parent by now.

        Ray's workers are known by the files that they hold open, since they overwrite their environment.
        """
        from tune_tasks.execution.guard import family, members

        mark = f"{MARK}={self.name}".encode()
        found = members(self.folder)
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # another user's, or it has just ended
                if mark in entry.read_bytes().split(b"\0"):
                    found.add(int(entry.parent.name))
        return family(found)

    def _run(self, options: Sequence[str]) -> None:
        """Starts Ray in a session of its own, so that it outlives the task."""
        from tune_tasks.errors import ConfigError

        here = Path(sys.executable).parent
        ray = shutil.which("ray", path=f"{here}{os.pathsep}{os.environ.get('PATH', '')}")
        if ray is None:
            raise ConfigError("there is no Ray on this machine; get it with: pip install 'ray[default]'")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") or "_AUTH_" in name}
        path = f"{here}{os.pathsep}{os.environ.get('PATH', '')}"  # jobs run `python`
        # Ray asks for the token of a user who has one, unless it is told not to; who submits jobs reads these too.
        variables = {"RAY_AUTH_MODE": "disabled", **kept, MARK: self.name, "PATH": path}
        command = [ray, "start", "--head", "--block", "--disable-usage-stats", f"--temp-dir={self.folder / 'ray'}"]
        with (self.folder / "log").open("ab") as log:
            subprocess.Popen(  # noqa: S603  # a program that was looked up
                [
                    *command,
                    f"--dashboard-host={_HOST}",
                    "--include-dashboard=true",
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=variables,
                start_new_session=True,
            )

    def _wait(self, address: str, seconds: float) -> None:
        from tune_tasks.errors import Unavailable

        limit = time.monotonic() + seconds
        while not self._answers(address):
            if not self.processes() or time.monotonic() > limit:
                said = (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:].strip()
                raise Unavailable(f"Ray does not answer at {address}; it said: {said or 'nothing'}")
            time.sleep(0.2)

    @staticmethod
    def _answers(address: str) -> bool:
        from tune_tasks.errors import Unavailable
        from tune_tasks.execution.jobs import Jobs

        try:
            return bool(Jobs(address).version())
        except Unavailable:
            return False


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, each another one."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((_HOST, 0))
        return [probe.getsockname()[1] for probe in probes]
