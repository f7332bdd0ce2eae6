"""Damage to what lies in a store: to hints and snapshots, which must not matter, and to segments, which must show."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import orjson

from tests.simulation.checker import Checker, demand
from tune_tasks.errors import CorruptLog
from tune_tasks.store import Objects, StudyLog
from tune_tasks.store.segment import fingerprint, segment_key
from tune_tasks.store.snapshot import Position, encode
from tune_tasks.store.snapshots import HINT
from tune_tasks.testing.faults import SharedObjects

HARMLESS = ("stale hint", "garbage hint", "no hint", "no snapshot", "torn snapshot", "forged snapshot", "fork")


def spoil(how: str, shared: SharedObjects, checker: Checker, random: Random) -> None:
    """Damages a hint or a snapshot in one of the ways of `HARMLESS`, if there is one yet."""
    objects = shared.objects
    snapshots = sorted(key for key in objects if key.startswith("snap/"))
    match how:
        case "stale hint":
            old = [a.given for a in shared.history if a.call.key == HINT and a.given]
            if old:
                shared.put(HINT, random.choice(old))
        case "garbage hint":
            shared.put(HINT, random.choice([b"", b"\0\xff", b"[]", b'{"snapshot": 3}', b'{"snapshot": "snap/1"}']))
        case "no hint":
            shared.drop(HINT)
        case "fork" if checker.segments:
            _fork(shared, checker)
        case "no snapshot" if snapshots:
            shared.drop(random.choice(snapshots))
        case "torn snapshot" if snapshots:
            key = random.choice(snapshots)
            shared.put(key, objects[key][: random.randrange(len(objects[key]))])
        case "forged snapshot" if snapshots:
            key = random.choice(snapshots)
            shared.put(key, objects[key].replace(b'"exhausted":false', b'"exhausted":true '))


def _fork(shared: SharedObjects, checker: Checker) -> None:
    """A snapshot that is whole and named by the hint, but of a log that took another turn."""
    state, number = checker.state.copy(), len(checker.segments)
    state.reason = "decided in another log"
    data = encode(state, Position(number, "f" * 64, state.study, checker.epoch))
    key = f"snap/{number:012d}.{fingerprint(data)[:16]}.snap"
    shared.put(key, data)
    hint = {"format": 1, "snapshot": key, "digest": fingerprint(data), "number": number}
    shared.put(HINT, orjson.dumps(hint))


def wound(shared: SharedObjects, checker: Checker, random: Random, log: Callable[[Objects], StudyLog]) -> None:
    """Damages one segment: every reader of the whole log must say so, and none may see anything but the truth."""
    number, intact = random.randrange(1, len(checker.segments)), dict(shared.objects)
    key = segment_key(number)
    match random.choice(["missing", "torn", "changed", "exchanged"]):
        case "missing":
            shared.drop(key)
        case "torn":
            shared.put(key, intact[key][:-1])
        case "changed":
            shared.put(key, intact[key].replace(b'"time":1', b'"time":2', 1))
        case "exchanged":
            shared.put(key, intact[segment_key(number + 1)])
    reader = log(shared.process("inspector"))
    try:
        found = sum(1 for _ in reader.segments())
        demand("I3", kept=False, why=f"segment {number} is damaged, but {found} segments were read without a word")
    except CorruptLog:
        pass
    try:
        _view(checker, reader)
    except CorruptLog:
        pass
    finally:
        shared.objects.clear()
        shared.objects.update(intact)


def _view(checker: Checker, reader: StudyLog) -> None:
    state = reader.load()
    checker.view(reader.head, state)
    whole = reader.head == len(checker.segments)
    demand("I3", kept=whole, why=f"a damaged log was read as if it ended at {reader.head}")
