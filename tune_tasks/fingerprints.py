"""A digest of data that lies somewhere, to tell whether it has changed since the last run.

This module must not keep anything, and must not read a remote object whose store knows its digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.store.names import shown_url

_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "checksum")
"""What stores call the digest of an object in their listings."""
_CHUNK = 1 << 20


def fingerprint(url: str | Path) -> str:
    """A digest of a file or a folder, by names and contents: a local path, or any URL that fsspec has a package for.

    Of remote objects the digest in the listing is taken where there is one. Times do not count: a copy of the same
    files has the same fingerprint. Raises `ConfigError` where there is nothing, and `Unavailable`.
    """
    digest, text = hashlib.sha256(), str(url)
    found = False
    for name, content in _remote(text) if "://" in text and not text.startswith("file://") else _local(text):
        digest.update(f"{len(name)}:{name}{len(content)}:{content}".encode())
        found = True
    if not found:
        raise ConfigError(f"data: {shown_url(text)!r} is not allowed; there is no file")
    return f"sha256:{digest.hexdigest()}"


def _local(text: str) -> Iterator[tuple[str, str]]:
    root = Path(text.removeprefix("file://")).expanduser()
    paths = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]
    try:
        for path in paths:
            with path.open("rb") as file:
                yield path.relative_to(root).as_posix() if path != root else "", _sha256(file)
    except FileNotFoundError as error:
        raise ConfigError(f"data: {text!r} is not allowed; {error.filename} is not there") from None


def _remote(text: str) -> Iterator[tuple[str, str]]:
    from fsspec.core import url_to_fs  # a local path needs no fsspec

    try:
        system, root = url_to_fs(text)
        system.invalidate_cache()
        listed: Mapping[str, Mapping[str, Any]] = system.find(root, detail=True)
        for path in sorted(listed):
            tag = next((str(listed[path][name]) for name in _TAGS if listed[path].get(name)), None)
            if tag is None:
                with system.open(path, "rb") as file:
                    tag = _sha256(file)
            yield path.removeprefix(root), tag
    except (ImportError, ValueError) as error:
        raise ConfigError(f"data: {text.partition('://')[0]!r} URLs cannot be read: {error}") from None
    except OSError as error:
        raise Unavailable(f"data: {error}") from error


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
