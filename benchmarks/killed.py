"""Processes for `chaos.py`: how one is started and killed, and what a killed Ray leaves behind, ended by its pid."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parent.parent
PATHS = [str(ROOT / "benchmarks"), str(ROOT / "examples" / "digits"), str(ROOT)]
"""Where the objectives are, and the tune_tasks of this tree."""
CALLS = ("create", "read", "replace", "list", "entries", "delete", "upload", "download")
WRITES = frozenset({"create", "replace", "delete", "upload"})


def environment(notes: Path, ray: Path) -> dict[str, str]:
    """What a run needs: where to note its epochs, where its Ray lives, and where the objectives are."""
    return {
        **os.environ,
        "CHAOS_NOTES": str(notes),
        "PYTHONPATH": os.pathsep.join(PATHS),
        "RAY_TMPDIR": str(ray),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
    }


def start(command: Sequence[str], variables: dict[str, str], output: Path) -> subprocess.Popen[bytes]:
    """Starts a command of Python whose output goes to a file."""
    with output.open("ab") as file:
        return subprocess.Popen([sys.executable, *command], env=variables, stdout=file, stderr=file)


def killed(process: subprocess.Popen[bytes] | Forked, reached: Callable[[], bool]) -> bool:
    """Kills a process when the moment has come; False where it came to its end before. Raises where it failed."""
    while process.poll() is None and not reached():
        time.sleep(0.005)
    if process.poll() is None:
        process.kill()
        process.wait()
        return True
    if process.returncode == -signal.SIGKILL:
        return True  # it killed itself
    if process.returncode:
        raise RuntimeError(f"a run failed by itself with exit code {process.returncode}: {process.args!r}")
    return False


def left_behind(folder: Path, patience: float) -> int:
    """Waits for processes that use a folder to end, then ends them one by one; returns how many it had to end."""
    limit = time.monotonic() + patience
    while (pids := _users(folder)) and time.monotonic() < limit:
        time.sleep(0.1)
    ended = set()
    while pids:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended |= pids
        time.sleep(0.1)
        pids = _users(folder)
    return len(ended)


def _users(folder: Path) -> set[int]:
    """Processes with an open file below a folder, or its name in their command line."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to someone else
            named = str(folder).encode() in (entry / "cmdline").read_bytes()
            holds = any(_target(file).is_relative_to(folder) for file in (entry / "fd").iterdir())
            if (named or holds) and int(entry.name) != os.getpid():
                found.add(int(entry.name))
    return found


def _target(file: Path) -> Path:
    try:
        return file.readlink()
    except OSError:
        return Path()


class Forked:
    """A fork of this process that does one thing; it has loaded what this process has, so it starts at once."""

    def __init__(self, work: Callable[[], int], output: Path) -> None:
        """Starts it; its output goes to a file, and what `work` returns is its exit code."""
        self.args = output
        self.returncode: int | None = None
        self._pid = os.fork()
        if not self._pid:
            _work(work, output)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.returncode if self.returncode is not None else self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        """Waits for the exit code."""
        return self.returncode if self.returncode is not None else self._wait(0)

    def kill(self) -> None:
        """Kills it with SIGKILL."""
        os.kill(self._pid, signal.SIGKILL)

    def _wait(self, options: int) -> int | None:
        pid, status = os.waitpid(self._pid, options)
        self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def _work(work: Callable[[], int], output: Path) -> NoReturn:
    code = 1
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        code = work()
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(code)


def watch_calls(heard: Callable[[int, str, str], None]) -> None:
    """Has each call to a local store told before it and after it, by number and name; for the life of this process."""
    from tune_tasks.store.local import LocalObjects

    numbers, lock = itertools.count(1), threading.Lock()

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def told(*arguments: Any) -> Any:
            with lock:
                number = next(numbers)
            heard(number, name, "before")
            result = call(*arguments)
            heard(number, name, "after")
            return result

        return told

    for name in CALLS:
        setattr(LocalObjects, name, watched(name, getattr(LocalObjects, name)))


def die() -> NoReturn:
    """Ends this process at this very instruction, as the machine's own kill does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process goes on")
