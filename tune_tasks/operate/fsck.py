"""Verifies every object of a study, says everything that is wrong with it, and what to do.

It works where the study cannot be opened at all, and reads only: this module must not write, mend or delete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from math import inf

from tune_tasks.errors import StudyNotFound
from tune_tasks.events import CheckpointRef
from tune_tasks.operate.findings import Checked, Finding, ordered
from tune_tasks.operate.fsck_data import DataCheck, check_data, check_evaluations, check_leftovers
from tune_tasks.operate.fsck_log import LogCheck
from tune_tasks.operate.fsck_snapshots import check_ahead, check_hint, check_snapshot
from tune_tasks.operate.keys import Contents, snapshot_number, sort_entries
from tune_tasks.operate.manifests import evaluations, references
from tune_tasks.store import Objects
from tune_tasks.store.places import NOTHING_HERE, Place, read_segments, study_objects
from tune_tasks.store.segment import fingerprint
from tune_tasks.store.snapshots import HINT

Progress = Callable[[str, int, int], None]


def check_study(place: Place, *, data: bool = True, progress: Progress | None = None) -> Checked:
    """Verifies a study and returns everything that was found; writes nothing.

    Without `data`, checkpoints and models are verified by their manifests and sizes, and not read through. `progress`
    is told what is being verified, and how many of how many are done. May run beside a driver. Raises `StudyNotFound`
    where there is no trace of a study, `ConfigError` and `Unavailable`.
    """
    objects = study_objects(place)
    check = _Check(objects, progress or (lambda _what, _done, _of: None))
    check.read_log()
    found = check.read_data(read=data)
    log, state = check.log, check.log.state
    return Checked(
        url=objects.url,
        study=log.study,
        done=state.done if state else None,
        trials=len(state.trials) if state else None,
        segments=check.segments,
        events=log.events,
        snapshots=len(check.digests),
        checkpoints=sum(key.startswith("ckpt/") for key in check.references),
        models=sum(key.startswith("models/") for key in check.references),
        files=found.files,
        size=found.size,
        findings=ordered([*log.findings, *check.findings, *found.findings]),
    )


@dataclass(slots=True)
class _Check:
    """One verification as it goes on."""

    objects: Objects
    progress: Progress
    log: LogCheck = field(default_factory=LogCheck)
    segments: int = 0
    digests: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    references: dict[str, CheckpointRef] = field(default_factory=dict)
    contents: Contents = field(default_factory=Contents)

    def read_log(self) -> None:
        """Verifies segments, snapshots and the hint. The hint is read first, so that what it names is in the listing.

        And the listing is made before the log is read, so that the log knows everything recorded that is listed.
        """
        hint = self.objects.read(HINT)
        self.contents = sort_entries(self.objects.entries(""))
        self._refuse_nothing()
        waiting = sorted({snapshot_number(key): None for key in self.contents.snapshots})
        for number, body in self._bodies():
            for position in [at for at in waiting if self.log.head < at < number]:
                self.log.lose(self.log.head + 1, position)
                self._compare(position)
            if number > self.log.head + 1:
                self.log.lose(self.log.head + 1, number - 1)
            self.log.take(number, body)
            self.segments += 1
            self._compare(number)
        self.log.finish()
        self._compare_ahead()
        self._keep(check_hint(hint, self.digests))

    def read_data(self, *, read: bool) -> DataCheck:
        """Verifies checkpoints and models, and finds what is left over."""
        certain = self._refer()
        found = check_data(
            self.objects,
            self.contents,
            self.references,
            read=read,
            certain=certain,
            advance=lambda done, of: self.progress("checkpoints and models", done, of),
        )
        # Where a segment cannot be read, it may name any of them.
        named = {*self.references} if certain else {*self.contents.checkpoints, *self.contents.models}
        if certain and found.findings:
            found = self._without_discarded(found)
        if self.log.state is not None and certain:
            measured = evaluations(self.log.state)
            self.findings += check_evaluations(self.objects, self.contents, measured, read=read)
        unfinished = self.objects.unfinished(inf)
        self.findings += check_leftovers(self.contents, unfinished, named, {*self.log.checkpoints})
        return found

    def _refer(self) -> bool:
        """Finds out what the log names; tells whether that is certain, because the fold came to its end."""
        state = self.log.state
        self.references = references(state) if state else self.log.checkpoints
        return state is not None and self.segments > 0

    def _without_discarded(self, found: DataCheck) -> DataCheck:
        """Reads the log on: what a driver has discarded meanwhile is not missing."""
        for number, body in self._since():
            self.log.take(number, body)
            self.segments += 1
        self._refer()
        return replace(found, findings=tuple(f for f in found.findings if f.key.startswith(tuple(self.references))))

    def _refuse_nothing(self) -> None:
        found = self.contents
        if found.segments:
            return
        if not (found.snapshots or found.hint or found.checkpoints or found.models):
            raise StudyNotFound(f"{self.objects.url}: {NOTHING_HERE}")
        told = f"is empty, but there are {len(found.snapshots)} snapshots and {len(found.checkpoints)} checkpoints"
        remedy = "bring the log back from a copy or a backup; without it nothing else says what the rest means"
        self.findings.append(Finding("error", "log/", told, remedy))

    def _bodies(self) -> Iterator[tuple[int, bytes]]:
        """The segments that were listed, in order, and those that were committed since."""
        listed = list(self.contents.segments)
        for number, body in read_segments(self.objects, listed):
            self.progress("segments", number, listed[-1])
            if body is not None:
                yield number, body
        if listed:
            yield from self._since()

    def _since(self) -> Iterator[tuple[int, bytes]]:
        """The segments behind those that were read."""
        for number, body in read_segments(self.objects, count(self.log.head + 1)):
            if body is None:
                return
            yield number, body

    def _compare(self, number: int) -> None:
        """Verifies the snapshots of the position at which the log was read up to now."""
        for key in self.contents.snapshots:
            if snapshot_number(key) == number:
                body = self._snapshot(key)
                self._keep(check_snapshot(key, body, self.log) if body is not None else None)

    def _compare_ahead(self) -> None:
        for key in self.contents.snapshots:
            if snapshot_number(key) > self.log.head:
                body = self._snapshot(key)
                self._keep(check_ahead(key, body, self.log) if body is not None else None)

    def _snapshot(self, key: str) -> bytes | None:
        """A snapshot; None where it was deleted since it was listed, as the third newest is."""
        body = self.objects.read(key)
        if body is not None:
            self.digests[key] = fingerprint(body)
        return body

    def _keep(self, finding: Finding | None) -> None:
        if finding is not None:
            self.findings.append(finding)
