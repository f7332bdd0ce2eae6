"""A server of Prefect's that a test kills by its id and starts again, and kill -9 of a process with all below it."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.prefect_server import PrefectServer, serve
from tests.servers.processes import free_port
from tune_tasks.execution.guard import family


def command_of(pid: int) -> str:
    """The command line of a process; nothing of one that has gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def kill_all(*pids: int) -> None:
    """kill -9 of processes and of all that they started."""
    for pid in family(set(pids)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Mortal:
    """A server of Prefect's that a test kills, and starts again with the same database."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.home, self.stack, self.port = home, stack, free_port()
        self.server = self.start()

    def start(self) -> PrefectServer:
        """Returns when it answers."""
        return self.stack.enter_context(serve(self.home, port=self.port))

    def kill(self) -> None:
        """kill -9."""
        kill_all(
            *(int(p.name) for p in Path("/proc").glob("[0-9]*") if f"--port {self.port}" in command_of(int(p.name)))
        )
