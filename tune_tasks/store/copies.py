"""Copies a file piece by piece and hashes what goes through. No file is ever whole in memory."""

from __future__ import annotations

import hashlib
from typing import IO, NamedTuple

PIECE = 1 << 20


class Copied(NamedTuple):
    """What went through a copy: bytes, and their SHA-256 in hexadecimal."""

    size: int
    digest: str


def copy(reader: IO[bytes], writer: IO[bytes], size: int | None = None) -> Copied:
    """Copies up to `size` bytes from one open file to another, hashing exactly what is written."""
    digest, done = hashlib.sha256(), 0
    while piece := reader.read(PIECE if size is None else min(PIECE, size - done)):
        writer.write(piece)
        digest.update(piece)
        done += len(piece)
    writer.flush()
    return Copied(done, digest.hexdigest())
