"""Finds pickled files in a model's folder: whoever loads one runs whatever code it holds.

By content, not by name alone, and cheap: the beginning of each file, of each member of a zip archive, and of what is
compressed. This module must not unpickle, or load, anything.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickletools
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tune_tasks.errors import ConfigError

_NAMES = {".pkl", ".pickle", ".joblib"}
_OPCODES = {opcode.code.encode("latin-1") for opcode in pickletools.opcodes}
_HEAD = 4096
_OLD = 1 << 20
"""Bytes up to which a file is read in full, to tell a pickle of the first protocols, which has no mark, from text."""

_COMPRESSED: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    b"BZ": bz2.open,
    b"\xfd7": lzma.open,
    b"]\x00": lzma.open,
}


def refuse(folder: Path, *, allowed: bool) -> None:
    """Raises `ConfigError` naming the first pickled files of a folder, unless the spec allows them."""
    found = [] if allowed else list(pickled(folder))
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ConfigError(
            f"promotion.pickle: {', '.join(found[:3])}{more} of the model is pickled: whoever loads it runs whatever "
            "code it holds, on every machine that serves it. Save arrays or text (numpy.savez, safetensors, JSON), or "
            "write promotion.pickle: true where you trust everyone who can write to the store"
        )


def pickled(folder: Path) -> Iterator[str]:
    """The names of the files in a folder that are pickled, or have something pickled in them."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and _is_pickled(path):
            yield path.relative_to(folder).as_posix()


def _is_pickled(path: Path) -> bool:
    if path.suffix.lower() in _NAMES:
        return True
    with path.open("rb") as file:
        head = file.read(_HEAD)
        whole = head + file.read(_OLD) if head[:1] in _OPCODES else b""
    if zipfile.is_zipfile(path):
        return _in_archive(path)
    return _holds(head) or _calls(whole) or any(_holds(inside) for inside in _unpacked(path, head))


def _in_archive(path: Path) -> bool:
    """Whether a member is pickled, as in what torch.save writes, or in an .npz with arrays of objects."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if Path(member.filename).suffix.lower() in _NAMES:
                return True
            if member.flag_bits & 1:
                continue  # encrypted: nothing loads it without a password
            with archive.open(member) as file:
                if _holds(file.read(_HEAD)):
                    return True
    return False


def _unpacked(path: Path, head: bytes) -> Iterator[bytes]:
    """The beginning of what is compressed in a file, as joblib does it; nothing where it is not."""
    for magic, opened in _COMPRESSED.items():
        if head.startswith(magic):
            try:
                with opened(path, "rb") as file:
                    yield file.read(_HEAD)
            except (OSError, EOFError, lzma.LZMAError, zlib.error):
                return
    if head[:1] == b"\x78":
        try:
            yield zlib.decompressobj().decompress(head, _HEAD)
        except zlib.error:
            return


def _holds(head: bytes) -> bool:
    """Whether bytes begin a pickle, or an array of numpy with objects in it."""
    if head[:6] == b"\x93NUMPY":
        return b"|O" in head.partition(b"\n")[0]
    return head[:1] == b"\x80" and head[1:2] <= b"\x05" and head[2:3] in _OPCODES


def _calls(whole: bytes) -> bool:
    """Whether bytes are a pickle of protocol 0 or 1 that names something to call; of text some opcode makes no sense.

    `dis` reads the opcodes and keeps account of the stack that they would use; it runs none of them.
    """
    told = io.StringIO()
    try:
        pickletools.dis(whole, told)
    except Exception:  # noqa: BLE001  # whatever it raises, these bytes are no pickle
        return False
    return any(name in told.getvalue() for name in (" GLOBAL ", " INST ", " OBJ ", " REDUCE"))
