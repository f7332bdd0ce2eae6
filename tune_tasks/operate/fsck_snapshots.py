"""Verifies snapshots, and the hint that names the newest, against what the log itself tells.

Pure: bytes come in, findings come out. A snapshot is only a shortcut, so one that cannot be used is no error; one that
opens a study in a wrong state is, and so is one that knows of more than the log has.
"""

from __future__ import annotations

import sys

import orjson

from tune_tasks.errors import CorruptLog
from tune_tasks.events import FORMAT
from tune_tasks.operate.findings import Finding
from tune_tasks.operate.fsck_log import LogCheck
from tune_tasks.operate.keys import snapshot_number
from tune_tasks.operate.states import differences
from tune_tasks.store.segment import fingerprint, segment_key
from tune_tasks.store.snapshot import FOLD, Position, decode
from tune_tasks.store.snapshots import HINT
from tune_tasks.study import StudyState

_DELETE = "delete it; the log has everything, and the next snapshot is written by itself"
_NOTHING = "nothing; it is passed over, and the next one is written by itself"
_CONTRADICTION = "delete the snapshot, and report this: both come from the same events"
_LOST = (
    "what was committed is lost, or someone exchanged it: bring the segments back from a copy of the study, a backup, "
    "or the bucket's older versions"
)


def check_snapshot(key: str, data: bytes, log: LogCheck) -> Finding | None:
    """Verifies a snapshot when the log has been read up to its position; gives a broken log a new beginning there."""
    found = _read(key, data)
    if isinstance(found, Finding):
        return found
    state, at = found
    if log.study and at.study != log.study:
        return _foreign(key, at, log)
    if not log.unreadable and at.chain != log.chain:
        was = f"was written after a segment {at.number} with SHA-256 {at.chain}, but the one there has {log.chain}"
        return Finding("error", key, was, _LOST)
    if log.unreadable or log.state is None:
        log.go_on(state, at.chain)
    else:
        return _compared(key, log.state, state)
    return None


def check_ahead(key: str, data: bytes, log: LogCheck) -> Finding:
    """Reports a snapshot of a position behind the end of the log."""
    found = _read(key, data)
    if isinstance(found, Finding):
        return found
    at = found[1]
    if log.study and at.study != log.study:
        return _foreign(key, at, log)
    told = f"was written after segment {at.number} (SHA-256 {at.chain}), but the log ends with segment {log.head}"
    return Finding("error", key, told, _LOST)


def check_hint(data: bytes | None, digests: dict[str, str]) -> Finding | None:
    """Verifies the hint against the snapshots that are there, by their digests."""
    if data is None:
        return Finding("note", HINT, "is missing; the snapshots are found by a listing", _NOTHING) if digests else None
    try:
        hint = orjson.loads(data)
        newer, key, digest = hint["format"] > FORMAT, hint["snapshot"], hint["digest"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return Finding("warning", HINT, f"is not a hint: it begins with {data[:60]!r}", _DELETE)
    if newer:
        return Finding("note", HINT, f"has format {hint['format']}, this version reads up to {FORMAT}", _NOTHING)
    if key not in digests:
        return Finding("warning", HINT, f"names {key}, which is not there", _DELETE)
    if digest != digests[key]:
        return Finding("warning", HINT, f"says that {key} has SHA-256 {digest}, but it has {digests[key]}", _DELETE)
    return None


def _foreign(key: str, at: Position, log: LogCheck) -> Finding:
    return Finding("warning", key, f"is of study {at.study}, but the log is of study {log.study}", _DELETE)


def _compared(key: str, told: StudyState, kept: StudyState) -> Finding | None:
    different = differences(told, kept)
    if not different:
        return None
    problem = f"tells another state than the segments before it: {', '.join(different[:5])} differ"
    return Finding("error", key, problem, _CONTRADICTION)


def _read(key: str, data: bytes) -> tuple[StudyState, Position] | Finding:
    actual, number = fingerprint(data), snapshot_number(key)
    if not actual.startswith(key.split(".")[1]):
        return Finding("warning", key, f"is not what its name says: it has SHA-256 {actual}", _DELETE)
    if told := _other_version(data):
        return Finding("note", key, told, _NOTHING)
    try:
        state, at = decode(data)
    except CorruptLog as error:
        return Finding("warning", key, str(error), _DELETE)
    if at.number != number:
        return Finding("warning", key, f"is of {segment_key(at.number)}, not of the segment in its name", _DELETE)
    return state, at


def _other_version(data: bytes) -> str:
    """What makes a whole snapshot one that this version on this machine does not use; "" where nothing does."""
    try:
        header = orjson.loads(data.partition(b"\n")[0])
        wrote, reads = (header["format"], header["fold"], header["order"]), (FORMAT, FOLD, sys.byteorder)
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return ""
    return "" if wrote == reads else f"has format, fold and byte order {wrote}, and this version uses {reads}"
