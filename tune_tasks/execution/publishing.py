"""How checkpoints get to the store while their trial goes on.

This module must not know what is in a checkpoint, or where it goes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tune_tasks.execution.scratch import new_folder
from tune_tasks.store import aside
from tune_tasks.store.aside import Aside, AtOnce


class Publisher(Aside, Protocol):
    """Does the writing to the store. A job must not raise."""

    def save(self, folder: Path, publish: Callable[[Path], None]) -> None:
        """Has a folder, or one file, published as it is now: it may change once this returns. Raises `OSError`."""
        ...


class Direct(AtOnce):
    """Does each job at once, where it is asked for."""

    def save(self, folder: Path, publish: Callable[[Path], None]) -> None:
        """Publishes the original; nothing is copied."""
        publish(folder)


class Background(aside.Background):
    """Does the jobs beside the trial; a report waits where the store is too slow, so that the disk does not fill."""

    def save(self, folder: Path, publish: Callable[[Path], None]) -> None:
        """Publishes a copy. A real one: a hard link would change with the original."""
        stage = new_folder("checkpoint")
        copy = stage / folder.name

        def job() -> None:
            try:
                publish(copy)
            finally:
                shutil.rmtree(stage, ignore_errors=True)

        try:
            shutil.copytree(folder, copy) if folder.is_dir() else shutil.copy2(folder, copy)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
        self.put(job)
