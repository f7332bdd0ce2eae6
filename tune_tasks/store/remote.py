"""Objects in a bucket through fsspec: S3, Google Cloud Storage, Azure.

The file system is rebuilt from the URL and the environment in every process, since fsspec's own objects and their
JSON hold the secret. On the commit path there is no listing cache, no instance cache, no stream and no retry: each of
them has hidden or half-published an object. What a reply means is decided in `replies`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec

from tune_tasks.errors import ConfigError, TuneError, Unavailable, invalid
from tune_tasks.store.copies import Copied, copy
from tune_tasks.store.names import shown_url, split_credentials, split_url
from tune_tasks.store.replies import Kind, Reply, reply

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
"""The schemes whose file system is known to pass the condition on, each with the extra that installs it.

fsspec has many more, but their create looks first and writes then: it would pass the probe and lose a race.
"""

_PART = 16 << 20
_SLOWEST = 1e6
"""Bytes in a second: what is sent slower than this is taken for a connection that hangs."""
_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|CREDENTIAL|CONNECTION_STRING|_KEY|_SAS", re.IGNORECASE)
_LONG_ENOUGH = 6
_LONGEST = 500
_EXPECTED = object()

# One more try is botocore's; every other is counted, logged and ended by our own wrapper. With more than one range at
# once s3fs asks for the size first: a second request, whose 404 does not say whether the bucket or the key is absent.
_S3: dict[str, Any] = {
    "config_kwargs": {
        "connect_timeout": 5,
        "read_timeout": 10,
        "max_pool_connections": 32,
        "retries": {"total_max_attempts": 2, "mode": "standard"},
    },
    "max_concurrency": 1,
}


class FsspecObjects:
    """The objects below one folder of a bucket. Safe between threads, and after a fork, which fsspec's own are not."""

    lanes = 16

    def __init__(self, url: str, deadline: float) -> None:
        scheme, rest = split_url(url)
        place, credentials = split_credentials(rest)
        self.url = shown_url(url)
        bare = f"{scheme}://{place}"
        self._class = _implementation(scheme, self.url)
        self._options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        self._options |= self._class._get_kwargs_from_urls(bare)  # noqa: SLF001  # how fsspec reads Azure's account
        self._s3 = _EXTRAS[scheme] == "s3"
        if self._s3:
            self._options |= _S3
        if credentials is not None:
            if not self._s3:
                raise ConfigError(f"store: {self.url} has credentials, which come from the environment on this store")
            self._options |= {"key": credentials.user, "secret": credentials.password}
        self._secrets = {text for part in credentials or () for text in (part, quote(part, safe=""))}
        self._root: str = self._class._strip_protocol(bare).rstrip("/")  # noqa: SLF001  # as fsspec.core does
        self._made: tuple[int, Any] | None = None
        self._patience, self._read_patience = deadline / 3, deadline  # what is read may be large

    def __repr__(self) -> str:
        return f"<objects at {self.url}>"

    def create(self, key: str, data: bytes) -> bool:
        """See `Objects.create`: one PUT with the condition that there is nothing."""
        answer = self._ask("exists", self._sending(data), "pipe_file", self._path(key), data, mode="create")
        return answer is not _EXPECTED

    def read(self, key: str) -> bytes | None:
        """See `Objects.read`."""
        data = self._ask("absent", self._read_patience, "cat_file", self._path(key))
        return None if data is _EXPECTED else bytes(data)

    def replace(self, key: str, data: bytes) -> None:
        """See `Objects.replace`."""
        self._ask(None, self._sending(data), "pipe_file", self._path(key), data)

    def list(self, prefix: str) -> list[str]:
        """See `Objects.list`."""
        found = self._ask("absent", self._read_patience, "find", self._root, prefix=prefix)
        wanted = self._path(prefix)
        return [] if found is _EXPECTED else sorted(n[len(self._root) + 1 :] for n in found if n.startswith(wanted))

    def delete(self, key: str) -> None:
        """See `Objects.delete`."""
        self._ask("absent", self._patience, "rm_file", self._path(key))

    def upload(self, source: Path, key: str) -> Copied:
        """See `Files.upload`; in parts, so that a large file costs memory for one part."""
        with source.open("rb") as reader, self._translated():
            writer = self._filesystem().open(self._path(key), "wb", block_size=_PART)
            try:
                copied = copy(reader, writer)
                writer.close()
            except BaseException:
                writer.closed = True  # or its destructor would publish the part that was written
                with suppress(Exception):
                    writer.discard()
                raise
        return copied

    def download(self, key: str, target: Path, size: int) -> Copied | None:
        """See `Files.download`; range by range, so that a large file costs memory for one range."""
        digest, done = hashlib.sha256(), 0
        with target.open("wb") as file:
            while done < size:
                part = self._range(key, done, min(done + _PART, size))
                if part is None and done == 0:
                    return None
                if not part:
                    break
                done += file.write(part)
                digest.update(part)
        return Copied(done, digest.hexdigest())

    def _range(self, key: str, start: int, end: int) -> bytes | None:
        """A part of an object; None where the object is absent, or ends before it."""
        wanted: Kind = "ended" if start else "absent"
        part = self._ask(wanted, self._read_patience, "cat_file", self._path(key), start=start, end=end)
        return None if part is _EXPECTED else bytes(part)

    def _sending(self, data: bytes) -> float:
        return self._patience + len(data) / _SLOWEST

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _ask(self, expected: Kind | None, limit: float, name: str, *args: Any, **options: Any) -> Any:
        """Sends one request and waits up to `limit` seconds; `_EXPECTED` where the reply is of the expected kind."""
        try:
            with self._translated(expected):
                files = self._filesystem()
                request = getattr(files, f"_{name}")(*args, **options)
                future = asyncio.run_coroutine_threadsafe(request, files.loop)
                try:
                    return future.result(limit)
                except BaseException:
                    future.cancel()  # or a request that nobody waits for would go on, and could land
                    raise
        except _ExpectedReply:
            return _EXPECTED

    def _filesystem(self) -> Any:
        """The file system of this process: one that was made before a fork refuses to work after it."""
        if self._made is None or self._made[0] != os.getpid():
            made = self._class(**self._options)
            if self._s3:
                made.retries = 1
            self._made = (os.getpid(), made)
        return self._made[1]

    @contextmanager
    def _translated(self, expected: Kind | None = None) -> Iterator[None]:
        """Turns whatever a file system raises into our errors, and what is expected into `_ExpectedReply`.

        Not chained: the original's text may hold what must not be shown.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001  # three libraries, each with its own hierarchy
            found = reply(error)
            raise _ExpectedReply if found.kind == expected else self._named(error, found) from None

    def _named(self, error: Exception, found: Reply) -> TuneError:
        status = f"HTTP {found.status} {found.code}: " if found.status else ""
        text = " ".join(str(error).split()) or "no answer in time"
        told = self._redacted(f"{status}{type(error).__name__}: {text}")[:_LONGEST]
        if found.kind in {"refused", "absent"}:
            return ConfigError(f"store: {self.url}: {told}; check that the bucket exists and that you may use it")
        return Unavailable(f"{self.url}: {told}")

    def _redacted(self, text: str) -> str:
        """The text without the credentials of the URL and of the environment."""
        secrets = self._secrets | {value for name, value in os.environ.items() if _SECRET.search(name)}
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= _LONG_ENOUGH:
                text = text.replace(secret, "***")
        return text


class _ExpectedReply(Exception):
    """The reply that the caller asked about."""


def _implementation(scheme: str, shown: str) -> Any:
    """The class of a file system. Raises `ConfigError` for an unknown scheme and for a missing package."""
    if scheme not in _EXTRAS:
        known = ("file", "memory", *_EXTRAS)
        allowed = f"allowed are a local path and the schemes {', '.join(known)}"
        raise invalid("store", shown, allowed, [f"{name}{shown[len(scheme) :]}" for name in known])
    try:
        return fsspec.get_filesystem_class(scheme)
    except ImportError:
        extra = _EXTRAS[scheme]
        raise ConfigError(
            f"store: {shown} needs a package that is not installed; install it with pip install 'tune-tasks[{extra}]'"
        ) from None
