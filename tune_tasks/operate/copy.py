"""Copies a study to another store, verified on the way; killed at any moment it is run again and goes on.

What the log names goes first, then the segments in their order, so that a copy never names what it does not have.
This module must not overwrite a segment, and must not change the source.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any

from tune_tasks.errors import ConfigError, CorruptLog
from tune_tasks.operate.copy_data import send_folder, send_object, send_output
from tune_tasks.operate.keys import Folder, sort_entries
from tune_tasks.operate.manifests import evaluations, references
from tune_tasks.operate.states import differences
from tune_tasks.store import Objects, StudyLog, probe
from tune_tasks.store import segment as codec
from tune_tasks.store.checkpoints import AT_ONCE
from tune_tasks.store.places import Place, read_segments, study_log, study_objects
from tune_tasks.store.segment import fingerprint, segment_key
from tune_tasks.study import StudyState

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Copied:
    """What `copy_study` did. `segments` the copy has in all; the rest counts what this call sent, `size` in bytes."""

    source: str
    target: str
    study: str
    segments: int
    sent: int
    folders: int
    files: int
    size: int

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return asdict(self)


def copy_study(source: Place, target: Place, *, progress: Progress | None = None) -> Copied:
    """Copies a study to where there is none yet, or goes on with a copy of it, up to the source's newest segment.

    The copy has the log byte for byte, and the checkpoints, models and output that it names. From then on they are two
    studies with one id: never drive both under one registry. Raises `ConfigError` for a target that has another study
    or has gone on by itself, `CorruptLog` for a source that is not whole (see `check_study`), `StudyNotFound` and
    `Unavailable`.
    """
    old, new = study_objects(source), study_objects(target)
    if old.url == new.url:
        raise ConfigError(f"copy: {old.url} is both the source and the target; give another URL to copy to")
    log = study_log(old)
    state = log.load()
    copy = _Copy(old, new, progress or (lambda _what, _done, _of: None))
    copy.verify_target(log.head)
    if not state.spec.unsafe_single_writer:
        probe(new)
    while True:
        copy.send_data(state, log)
        copy.send_segments(log.head)
        if log.catch_up(state) == 0:
            break
    _compare(log, state, new)
    return Copied(old.url, new.url, state.study, log.head, copy.sent, copy.folders, copy.files, copy.size)


@dataclass(slots=True)
class _Copy:
    """One copying as it goes on."""

    old: Objects
    new: Objects
    progress: Progress
    head: int = 0
    chain: str = ""
    study: str = ""
    sent: int = 0
    folders: int = 0
    files: int = 0
    size: int = 0
    _there: set[str] = field(default_factory=set)

    def verify_target(self, head: int) -> None:
        """Compares the segments that the target has with the source's, and finds out where the copy goes on."""
        found = self.new.read(segment_key(1))
        if found is None and self.new.list("log/"):
            raise ConfigError(
                f"copy: {self.new.url} has a log without its beginning; copy to another URL, or clear this one"
            )
        if found is None:
            return
        ours = codec.decode(self.old.read(segment_key(1)) or b"", 1, self.old.url).study
        theirs = codec.decode(found, 1, self.new.url).study
        if ours != theirs:
            raise ConfigError(
                f"copy: {self.new.url} has another study ({theirs}, and {self.old.url} is {ours}); copy to another URL"
            )
        pairs = zip(read_segments(self.old, count(1)), read_segments(self.new, count(1)), strict=False)
        for (number, old), (_, new) in pairs:
            if new is None:
                return
            self.progress("segments of the target", number, head)
            if old != new:
                raise _parted(self.new, self.old, number, missing=old is None)
            self.head, self.chain, self.study = number, fingerprint(new), ours

    def send_data(self, state: StudyState, log: StudyLog) -> None:
        """Copies the checkpoints and models that the log names, and what the trials printed.

        What cannot be read is no mistake where the log, read on, names it no more: a driver may discard checkpoints.
        """
        there = sort_entries(self.new.entries(""))
        folders = {**there.checkpoints, **there.models}
        waiting = {key: named for key, named in references(state).items() if key not in self._there}
        # Two pools, as a folder waits for its files: in one, folders could wait for files that never get their turn.
        with ThreadPoolExecutor(AT_ONCE) as pool, ThreadPoolExecutor(AT_ONCE) as files:
            sending = {
                key: pool.submit(send_folder, self.old, self.new, named, folders.get(key, Folder(key, {})), files)
                for key, named in waiting.items()
            }
            for done, (key, future) in enumerate(sending.items()):
                self.progress("checkpoints and models", done, len(sending))
                try:
                    self._count(future.result(), folders=1)
                except CorruptLog:
                    log.catch_up(state)
                    if key in references(state):
                        pool.shutdown(cancel_futures=True)
                        raise
                self._there.add(key)
            for key, digest in evaluations(state).items():
                if key not in there.evaluations:
                    self._count([send_object(self.old, self.new, key, digest)], folders=0)
            self._count(send_output(self.old, self.new, there.output, files), folders=0)

    def send_segments(self, head: int) -> None:
        """Copies the segments up to `head`, each verified, and each created only if it is absent."""
        for number, data in read_segments(self.old, range(self.head + 1, head + 1)):
            self.progress("segments", number, head)
            key = segment_key(number)
            if data is None:
                raise CorruptLog(f"{self.old.url}/{key}: is missing, but was read a moment ago")
            segment = codec.decode(data, number, self.old.url)
            if segment.previous != self.chain or segment.study != (self.study or segment.study):
                raise CorruptLog(f"{self.old.url}/{key}: does not follow the segment before it any more")
            if not self.new.create(key, data) and self.new.read(key) != data:
                raise _parted(self.new, self.old, number, missing=False)
            self.head, self.chain, self.study = number, fingerprint(data), segment.study
            self.sent += 1
            self.size += len(data)

    def _count(self, sizes: list[int], *, folders: int) -> None:
        self.folders += folders if sizes else 0
        self.files += len(sizes)
        self.size += sum(sizes)


def _compare(log: StudyLog, state: StudyState, new: Objects) -> None:
    """Opens the copy as everybody else will, compares it, and leaves a snapshot that makes opening it fast."""
    copied = StudyLog(new)
    found = copied.load()
    if copied.head != log.head:
        raise _parted(new, None, min(copied.head, log.head) + 1, missing=copied.head > log.head)
    different = differences(state, found)
    if different:
        raise CorruptLog(f"{new.url}: opens in another state than {log.url}: {', '.join(different)} differ")
    if copied.snapshot_due:
        copied.snapshot(found)
        copied.settle()


def _parted(new: Objects, old: Objects | None, number: int, *, missing: bool) -> ConfigError:
    where = old.url if old is not None else "the source"
    how = f"which {where} does not have" if missing else f"which is not the one of {where}"
    return ConfigError(
        f"copy: {new.url} has gone on by itself: it has {segment_key(number)}, {how}; copy to another URL"
    )
