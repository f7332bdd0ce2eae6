"""A store that goes wrong on purpose: objects in memory that several "processes" share, each call of which can fail.

For whoever writes a step, a runner or a store of his own: a plan says of each call what becomes of it, so that a
failure that takes a month of luck to meet is one line of a test. What was answered is kept, to be checked afterwards.
This module must not draw a random number or read a clock: the same plan gives the same run.

    shared = SharedObjects(plan=lambda call: Fault.CRASH_AFTER if call.number == 17 else None)
    log = StudyLog(shared.process("first"))
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from tune_tasks.errors import Unavailable
from tune_tasks.store.copies import Copied
from tune_tasks.store.names import Entry, check_key, check_prefix

BEGINNING = 1e9
"""What the store's clock says before the first call, in seconds since the epoch."""

T = TypeVar("T")


class Crash(BaseException):
    """The process that called is gone, in the middle of the call: nothing that it does from here on has an effect."""


class Fault(Enum):
    """What can become of a call to a store."""

    FAIL = "fails, without an effect"
    CONFLICT = "is answered 409: two requests met, and neither had an effect"
    UNCLEAR = "has its effect, but its caller hears of a failure"
    LOST = "has its effect, and is sent again: a create then hears that the object is there"
    LATE = "fails, and has its effect after later calls"
    SLOW = "is answered only after others were"
    CRASH = "never happens: its process is killed before"
    CRASH_AFTER = "has its effect, and its process is killed before the answer"
    CRASH_LATE = "has its effect after later calls, long after its process was killed"


KILLS = frozenset({Fault.CRASH, Fault.CRASH_AFTER, Fault.CRASH_LATE})


class Call(NamedTuple):
    """One call to the store: its number among those of all processes, from 1 on, who called, and what."""

    number: int
    process: str
    name: str
    key: str


class Answer(NamedTuple):
    """A call that its process got an answer to: what it gave, if it wrote, and what it was told."""

    call: Call
    given: bytes | None
    told: Any


Plan: TypeAlias = Callable[[Call], Fault | None]


class SharedObjects:
    """What all processes see. `plan` decides about each call; `turn` is where other processes may go first.

    `lag` says how many later calls pass before a late write lands.
    """

    def __init__(
        self,
        plan: Plan = lambda _: None,
        *,
        url: str = "model://shared/study",
        lag: Callable[[], int] = lambda: 3,
        turn: Callable[[Call], None] = lambda _: None,
    ) -> None:
        self.plan, self.url, self.lag, self.turn = plan, url, lag, turn
        self.objects: dict[str, bytes] = {}
        self.modified: dict[str, float] = {}
        self.history: list[Answer] = []
        self.calls = self.changes = 0
        self._lock = threading.Lock()
        self._late: list[tuple[int, Callable[[], object]]] = []

    def process(self, name: str) -> FaultyObjects:
        """The store as one process holds it, until it is killed."""
        return FaultyObjects(self, name)

    def begin(self, process: str, name: str, key: str) -> Call:
        """Counts a call, and lets those writes land whose time has come."""
        self.calls += 1
        due, self._late = (
            [job for job in self._late if job[0] <= self.calls],
            [job for job in self._late if job[0] > self.calls],
        )
        for _, effect in due:
            effect()
        return Call(self.calls, process, name, key)

    def later(self, effect: Callable[[], object]) -> None:
        """Has a write land when its sender has given it up."""
        self._late.append((self.calls + self.lag(), effect))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """The one promise that the log rests on; a twin that breaks it must be found out."""
        with self._lock:
            if key in self.objects:
                return False
            self.put(key, data)
            return True

    def put(self, key: str, data: bytes) -> None:
        """Writes an object; the store's clock goes on by a second with each call."""
        self.objects[key], self.modified[key] = data, BEGINNING + self.calls
        self.changes += 1

    def drop(self, key: str) -> None:
        """Deletes an object, which may be absent."""
        self.objects.pop(key, None)
        self.modified.pop(key, None)
        self.changes += 1


class FaultyObjects:
    """One process's handle; fulfils `Objects`. Once it was killed, every call raises `Crash` and has no effect."""

    lanes = 1

    def __init__(self, shared: SharedObjects, name: str) -> None:
        self.shared, self.name, self.dead = shared, name, False

    def __repr__(self) -> str:
        return f"<objects at {self.url} for {self.name}>"

    @property
    def url(self) -> str:
        """Where the objects would lie."""
        return self.shared.url

    def create(self, key: str, data: bytes) -> bool:
        """See `Objects.create`."""
        return self._write("create", key, data, lambda: self.shared.put_if_absent(key, data))

    def read(self, key: str) -> bytes | None:
        """See `Objects.read`."""
        return self._call("read", check_key(key), lambda: self.shared.objects.get(key))

    def replace(self, key: str, data: bytes) -> None:
        """See `Objects.replace`."""
        self._write("replace", key, data, lambda: self.shared.put(key, data))

    def entries(self, prefix: str) -> list[Entry]:
        """See `Objects.entries`."""
        objects, modified = self.shared.objects, self.shared.modified
        return self._call(
            "entries",
            check_prefix(prefix),
            lambda: [Entry(key, len(objects[key]), modified[key]) for key in _keys(self.shared.objects, prefix)],
        )

    def delete(self, key: str) -> None:
        """See `Objects.delete`."""
        self._write("delete", key, None, lambda: self.shared.drop(key))

    def unfinished(self, before: float, *, remove: bool = False) -> list[Entry]:
        """See `Objects.unfinished`: there is never anything."""
        return []

    def upload(self, source: Path, key: str) -> Copied:
        """See `Files.upload`."""
        data = source.read_bytes()
        self._write("upload", key, data, lambda: self.shared.put(key, data))
        return Copied(len(data), hashlib.sha256(data).hexdigest())

    def download(self, key: str, target: Path, size: int) -> Copied | None:
        """See `Files.download`."""
        data = self._call("download", check_key(key), lambda: self.shared.objects.get(key))
        if data is None:
            return None
        target.write_bytes(data[:size])
        return Copied(len(data[:size]), hashlib.sha256(data[:size]).hexdigest())

    def list(self, prefix: str) -> list[str]:
        """See `Objects.list`."""
        return self._call("list", check_prefix(prefix), lambda: _keys(self.shared.objects, prefix))

    def _write(self, name: str, key: str, data: bytes | None, effect: Callable[[], T]) -> T:
        return self._call(name, check_key(key), effect, given=data, writes=True)

    def _call(
        self, name: str, key: str, effect: Callable[[], T], *, given: bytes | None = None, writes: bool = False
    ) -> T:
        if self.dead:
            raise Crash(f"{self.name} is dead")
        call = self.shared.begin(self.name, name, key)
        fault = self.shared.plan(call)
        self.shared.turn(call)
        if writes and not self.dead and fault in {Fault.LATE, Fault.CRASH_LATE}:
            self.shared.later(effect)
        self._stop(call, fault, {Fault.CRASH, Fault.CRASH_LATE}, {Fault.FAIL, Fault.CONFLICT, Fault.LATE})
        told = effect()
        if fault is Fault.SLOW:
            self.shared.turn(call)
        if fault is Fault.LOST and name == "create":
            fault, told = None, cast("T", False)  # noqa: FBT003  # a create tells whether it was the first
        self._stop(call, fault, {Fault.CRASH_AFTER}, {Fault.UNCLEAR, Fault.LOST})
        self.shared.history.append(Answer(call, given, told))
        return told

    def _stop(self, call: Call, fault: Fault | None, kills: set[Fault], fails: set[Fault]) -> None:
        """Raises what becomes of the call here, if its fault is one of these, or others have killed its process."""
        self.dead = self.dead or fault in kills
        if self.dead:
            raise Crash(f"{self.name} was killed at {call}")
        if fault in fails:
            raise Unavailable(f"{self.url}: {call.name} {call.key} {fault.value}")


def _keys(objects: dict[str, bytes], prefix: str) -> list[str]:
    return sorted(key for key in objects if key.startswith(prefix))
