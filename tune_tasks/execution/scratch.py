"""Local folders for what need not last: one home a process, which a later process removes where the first was killed.

Workers are killed without notice and hold copies of checkpoints, so a node would fill up with what they leave. A home
belongs to whoever holds the lock in it, not to a process number: those mean nothing across containers that share a
disk. This module must not remove a home whose lock is held.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import os
import shutil
import tempfile
import uuid
from pathlib import Path

_PREFIX = "tune-tasks-"
_LOCK = "lock"


def new_folder(name: str) -> Path:
    """Makes an empty folder of this process."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_home()))


def new_file(name: str) -> Path:
    """Names a file of this process that is not there yet."""
    return _home() / f"{name}-{uuid.uuid4().hex}"


@functools.cache
def _home() -> Path:
    sweep(Path(tempfile.gettempdir()))
    home = Path(tempfile.mkdtemp(prefix=_PREFIX))
    unlocked = home / "unlocked"
    fcntl.flock(os.open(unlocked, os.O_CREAT | os.O_RDWR, 0o600), fcntl.LOCK_EX)  # until the process ends
    unlocked.rename(home / _LOCK)  # under this name it has never been free while its process lived
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home


def sweep(folder: Path) -> None:
    """Removes the homes of processes that are gone."""
    for lock in folder.glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError):  # held, or someone else's
            file = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(file)
