"""Starts processes that cannot outlive whoever started them, and waits until they answer."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

ROOT = Path(__file__).parents[2]
INSTALLED = ROOT / ".servers"
"""Where `make servers` puts what has no Debian package."""

_LIBC = ctypes.CDLL(None)
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


class Missing(Exception):
    """A server that cannot be started here, and what to install so that it can."""


def present(name: str, *, places: Sequence[Path] = ()) -> bool:
    """Whether there is a program, in `places` or on PATH."""
    return _found(name, places) is not None


def program(name: str, *, package: str, places: Sequence[Path] = ()) -> str:
    """The path of a program, from `places` or PATH. Raises `Missing` with the package that has it."""
    found = _found(name, places)
    if found is None:
        raise Missing(f"{name} is not installed; get it with: make servers (it is in {package})")
    return found


def _found(name: str, places: Sequence[Path]) -> str | None:
    return next((str(place) for place in places if os.access(place, os.X_OK)), None) or shutil.which(name)


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(
    command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Starts a process that says everything to `log`, and that Linux kills when this thread ends for any reason."""
    mother = os.getpid()
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
            preexec_fn=lambda: _end_with(mother),  # noqa: PLW1509  # it makes two system calls
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process by its id, as kill -9 does."""
    process.kill()
    process.wait()


@contextmanager
def running(
    command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a process for as long as the block lasts."""
    process = start(command, log, environment=environment, cwd=cwd)
    try:
        yield process
    finally:
        stop(process)


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = 60.0) -> None:
    """Returns once `ready`. Raises `RuntimeError` with the end of the log where the process ended or took too long."""
    limit = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > limit:
            name, said = Path(str(process.args[0])).name, log.read_text(errors="replace")[-4000:]  # type: ignore[index]
            raise RuntimeError(f"{name} ended with {process.returncode} or does not answer; it said:\n{said}")
        time.sleep(0.02)


def answers(url: str) -> bool:
    """Whether a web server answers at all, whatever it says."""
    try:
        with urlopen(url, timeout=2):
            return True
    except HTTPError:
        return True
    except (URLError, OSError):
        return False


def _end_with(mother: int) -> None:
    _LIBC.prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != mother:  # it died before the line above
        os._exit(1)
