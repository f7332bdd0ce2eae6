"""A study for TensorBoard: an event file for each trial in a folder of its own, with scalars by step and the HParams.

A file holds what follows from the trial's state alone, and grows at its end. So whoever writes it, and however often,
the same bytes stand at the same place. This module must not know how an event is laid out: `summaries` does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from tune_tasks.errors import Unavailable
from tune_tasks.store import open_objects
from tune_tasks.store.names import shown_url, split_url
from tune_tasks.study import OVER, StudyState
from tune_tasks.tracking.marks import Mark, mark
from tune_tasks.tracking.places import beside
from tune_tasks.tracking.summaries import of_study, of_trial

_FIRST, _LAST = "events.out.tfevents.", ".tune-tasks"


class TensorBoardTracker(BaseModel):
    """An event file for the study, and below it one for each trial that has reported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    to: str | None = Field(
        default=None, description="folder or URL below which each study has its own; by default <store>/_tensorboard"
    )
    _marks: dict[int, Mark] = PrivateAttr(default_factory=dict)

    def place(self, state: StudyState, url: str) -> str | None:
        """The folder for `tensorboard --logdir`."""
        folder = self._folder(state, url)
        return shown_url(folder) if folder else None

    def update(self, state: StudyState, url: str) -> Iterator[None]:
        """See `Tracker.update`: one file at a time."""
        folder = self._folder(state, url)
        if folder is None:
            return
        files = EventFiles(folder)
        if not self._marks:
            files.bring("", of_study(state), settled=False)
            yield
        for trial in state.trials:
            now = mark(trial)
            if self._marks.get(trial.number) != now and (trial.budget or trial.state in OVER):
                files.bring(f"trial-{trial.number:06d}/", of_trial(state, trial), settled=trial.attempts <= 1)
                self._marks[trial.number] = now
                yield

    def _folder(self, state: StudyState, url: str) -> str | None:
        return beside(self.to, "_tensorboard", state, url, "tracking.tensorboard.to")


class EventFiles:
    """The event files below a folder or URL: one for each run, which a reader may have open while it grows."""

    def __init__(self, place: str) -> None:
        scheme, rest = split_url(place)
        self._objects = open_objects(place)
        self._local = Path(rest).expanduser() if scheme == "file" else None
        self._known: dict[str, list[tuple[str, int]]] = {}
        for entry in self._objects.entries(""):
            folder, _, name = entry.key.rpartition("/")
            if name.startswith(_FIRST) and name.endswith(_LAST):
                self._known.setdefault(f"{folder}/" if folder else "", []).append((entry.key, entry.size))

    def bring(self, folder: str, data: bytes, *, settled: bool) -> None:
        """Makes `data` what TensorBoard reads of a run, where it is not more of the same already.

        `settled`: what once stood in the file never changes, so that its size tells what it holds. Otherwise it is
        read, and where it tells of what does not hold any more, it is emptied and another file follows it.
        """
        key, size = (self._known.get(folder) or [(f"{folder}{_FIRST}{0:010d}{_LAST}", 0)])[-1]
        if settled and size >= len(data):
            return
        there = data[:size] if settled else self._objects.read(key) or b""
        if data.startswith(there):
            if there != data:
                self._write(key, data)
        elif not there.startswith(data):
            number = int(key.rpartition("/")[2].removeprefix(_FIRST).removesuffix(_LAST)) + 1
            self._write(f"{folder}{_FIRST}{number:010d}{_LAST}", data)
            self._objects.replace(key, b"")  # a TensorBoard that has it open goes on to the next, not from a lost one

    def _write(self, key: str, data: bytes) -> None:
        """Adds to a local file what it lacks at its end, since TensorBoard keeps it open; elsewhere, replaces it."""
        if self._local is None:
            self._objects.replace(key, data)
            return
        path = self._local / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                start = os.fstat(descriptor).st_size
                while start < len(data):
                    start += os.pwrite(descriptor, data[start:], start)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise Unavailable(f"{path}: {error.strerror or error}") from error
