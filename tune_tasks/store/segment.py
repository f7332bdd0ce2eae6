"""One commit as the bytes of one object: a header line of JSON, then one line for each event.

`digest` is the SHA-256 of the header without it and of the body, so no byte of a segment can change unseen; `previous`
is the SHA-256 of the whole segment before, so none can be exchanged. Pure. This module must not skip or mend anything.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import orjson
from pydantic import ValidationError

from tune_tasks.errors import ConfigError, CorruptLog
from tune_tasks.events import FORMAT, Event
from tune_tasks.events import decode as decode_event
from tune_tasks.events import encode as encode_event

LIMIT = 8 << 20
"""The most bytes of a segment. Large objects are sent in parts, and several servers then ignore the condition."""

Role: TypeAlias = Literal["step", "driver"]

_NAME = re.compile(r"log/(\d{12})\.jsonl")
_DIGEST = re.compile(rb',"digest":"([0-9a-f]{64})"\}')
_SEALED = len(',"digest":""}') + 64
_HEADER = {
    "format": int,
    "study": str,
    "number": int,
    "epoch": int,
    "role": str,
    "writer": str,
    "commit": str,
    "previous": str,
    "events": int,
    "length": int,
    "time": float,
}


@dataclass(frozen=True, slots=True)
class Segment:
    """A commit. `previous` is the digest of the segment before ("" for the first), `time` in seconds as in events."""

    study: str
    number: int
    epoch: int
    role: Role
    writer: str
    commit: str
    previous: str
    time: float
    events: tuple[Event, ...]


def segment_key(number: int) -> str:
    """Where segment `number` lies below the study's URL."""
    return f"log/{number:012d}.jsonl"


def segment_number(key: str) -> int | None:
    """The number of the segment at a key; None where no segment lies there."""
    match = _NAME.fullmatch(key)
    return int(match[1]) if match else None


def fingerprint(data: bytes) -> str:
    """The SHA-256 of a whole object, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def encode(segment: Segment) -> bytes:
    """Writes a segment. Raises `ValueError` for an event that would not be read back equal, and above `LIMIT`."""
    body = b"".join(_line(event) for event in segment.events)
    header = {name: getattr(segment, name) for name in _HEADER if name not in {"format", "events", "length"}}
    open_header = orjson.dumps({"format": FORMAT, **header, "events": len(segment.events), "length": len(body)})
    digest = fingerprint(open_header + b"\n" + body)
    data = b'%b,"digest":"%b"}\n%b' % (open_header[:-1], digest.encode(), body)
    if len(data) > LIMIT:
        raise ConfigError(
            f"a commit of {len(data)} bytes is above the limit of {LIMIT}; "
            "ask for smaller batches, or for less in the spec"
        )
    return data


def decode(data: bytes, number: int, where: str = "") -> Segment:
    """Reads segment `number` back. Raises `CorruptLog`, naming key and digests, where one byte is not as written.

    `where` is the study's URL, for the message.
    """
    key = "/".join(filter(None, (where, segment_key(number))))
    line, found, body = data.partition(b"\n")
    header = _parse(line, key)
    sealed = _DIGEST.fullmatch(line[-_SEALED:])
    if not found or sealed is None or {*header} != {*_HEADER, "digest"}:
        raise CorruptLog(f"{key}: is not a complete segment; its {len(data)} bytes have SHA-256 {fingerprint(data)}")
    written, actual = sealed[1].decode(), fingerprint(line[:-_SEALED] + b"}\n" + body)
    if written != actual:
        raise CorruptLog(f"{key}: was written with digest {written}, but what is there now has {actual}")
    if any(type(header[name]) is not kind for name, kind in _HEADER.items()) or header["role"] not in {
        "step",
        "driver",
    }:
        raise CorruptLog(f"{key}: digest {written} is right, but its header is not that of a segment")
    if header["number"] != number:
        raise CorruptLog(f"{key}: holds segment {header['number']} (digest {written}), expected segment {number}")
    return _segment(header, body, key)


def _line(event: Event) -> bytes:
    line = encode_event(event)
    # JSON has no NaN and no infinity, and turns tuples inside free fields into lists: what is written would then not
    # be what the writer's own state was told, and the two would part at the next load.
    if decode_event(line) != event:
        raise ValueError(f"an event of type {event.type!r} would not be read back as it is: {line[:200]!r}")
    return line + b"\n"


def _parse(line: bytes, key: str) -> dict[str, Any]:
    try:
        header = orjson.loads(line)
    except orjson.JSONDecodeError:
        header = None
    if not isinstance(header, dict):
        raise CorruptLog(f"{key}: does not begin with the header of a segment; its first line is {line[:80]!r}")
    version = header.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise CorruptLog(
            f"{key}: has format {version}, and this version of tune_tasks reads formats up to {FORMAT}; "
            "use the version that wrote it, or a newer one"
        )
    return header


def _segment(header: dict[str, Any], body: bytes, key: str) -> Segment:
    lines = body.split(b"\n")
    if header["length"] != len(body) or header["events"] != len(lines) - 1 or lines[-1] or header["format"] != FORMAT:
        raise CorruptLog(
            f"{key}: says format {header['format']}, {header['length']} bytes and {header['events']} events, "
            f"but has {len(body)} bytes and {len(lines) - 1} events"
        )
    try:
        events = tuple(decode_event(line) for line in lines[:-1])
    except ValidationError as error:
        raise CorruptLog(f"{key}: holds an event that cannot be read: {error}") from None
    kept = {name: header[name] for name in ("study", "number", "epoch", "writer", "commit", "previous", "time")}
    return Segment(role=cast("Role", header["role"]), events=events, **kept)
