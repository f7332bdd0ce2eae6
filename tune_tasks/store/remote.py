"""Objects in a bucket through fsspec: S3, Google Cloud Storage, Azure.

The file system is rebuilt from the URL and the environment in every process, since fsspec's own objects and their
JSON hold the secret. On the commit path there is no listing cache, no instance cache, no stream and no retry: each of
them has hidden or half-published an object. What a reply means is decided in `replies`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tune_tasks.errors import ConfigError, TuneError, Unavailable
from tune_tasks.store.clients import CLOUDS, connect, implementation, options
from tune_tasks.store.copies import Copied, copy
from tune_tasks.store.fast import FastFiles
from tune_tasks.store.names import Entry, shown_url, split_credentials, split_url
from tune_tasks.store.replies import Kind, Reply, reply

_PART = 16 << 20
_SLOWEST = 1e6
"""Bytes in a second: what is sent slower than this is taken for a connection that hangs."""
_QUIET = 2.0
"""Seconds for which nobody needs to read that a request is under way."""
_VERBS = {"pipe_file": "write", "cat_file": "read", "find": "list", "rm_file": "delete", "call_s3": "ask for"}
_MODIFIED = ("LastModified", "last_modified", "updated")
"""Where S3, Azure and Google say when an object was written."""
_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|CREDENTIAL|CONNECTION_STRING|_KEY|_SAS", re.IGNORECASE)
_IN_CONNECTION = re.compile(r"(?:AccountKey|SharedAccessSignature)=([^;]+)")
_LONG_ENOUGH = 6
_LONGEST = 500
_EXPECTED = object()
_log = logging.getLogger(__name__)


class FsspecObjects:
    """The objects below one folder of a bucket. Safe between threads, and after a fork, which fsspec's own are not."""

    lanes = 16

    def __init__(self, url: str, deadline: float, variables: Mapping[str, str] | None = None) -> None:
        scheme, rest = split_url(url)
        place, credentials = split_credentials(rest)
        self.url = shown_url(url)
        bare = f"{scheme}://{place}"
        self._class, self._cloud = implementation(scheme, self.url), CLOUDS[scheme]
        self._options = dict(self._class._get_kwargs_from_urls(bare))  # noqa: SLF001  # how fsspec reads Azure's account
        if credentials is not None:
            if self._cloud != "s3":
                raise ConfigError(f"store: {self.url} has credentials, which come from the environment on this store")
            self._options |= {"key": credentials.user, "secret": credentials.password}
        self._options |= options(self._cloud, variables or {})
        given = (value for name, value in (variables or {}).items() if _SECRET.search(name))
        secrets = (*(credentials or ()), *given)
        self._secrets = {text for part in secrets for text in (part, quote(part, safe=""))}
        self._root: str = self._class._strip_protocol(bare).rstrip("/")  # noqa: SLF001  # as fsspec.core does
        self._made: tuple[int, Any] | None = None
        self._fast = FastFiles(self._cloud, self._root.partition("/")[0], self._filesystem)
        self._patience, self._read_patience = deadline / 3, deadline  # what is read may be large

    def __repr__(self) -> str:
        return f"<objects at {self.url}>"

    def create(self, key: str, data: bytes) -> bool:
        """See `Objects.create`: one PUT with the condition that there is nothing."""
        answer = self._ask("exists", "pipe_file", self._path(key), data, mode="create", size=len(data))
        return answer is not _EXPECTED

    def read(self, key: str) -> bytes | None:
        """See `Objects.read`."""
        data = self._ask("absent", "cat_file", self._path(key))
        return None if data is _EXPECTED else bytes(data)

    def replace(self, key: str, data: bytes) -> None:
        """See `Objects.replace`."""
        self._ask(None, "pipe_file", self._path(key), data, size=len(data))

    def entries(self, prefix: str) -> list[Entry]:
        """See `Objects.entries`; S3 and Azure tell the time in whole seconds."""
        found = self._ask("absent", "find", self._root, prefix=prefix, detail=True)
        if found is _EXPECTED:
            return []
        wanted, start = self._path(prefix), len(self._root) + 1
        known = ((name, told) for name, told in found.items() if name.startswith(wanted))
        return sorted(Entry(name[start:], int(told["size"]), _modified(told)) for name, told in known)

    def unfinished(self, before: float, *, remove: bool = False) -> list[Entry]:
        """See `Objects.unfinished`: on S3 uploads in parts; Azure and Google show none, and forget theirs in a week."""
        bucket, _, folder = self._root.partition("/")
        found = []
        for told in self._pages("list_multipart_uploads", "Uploads", Bucket=bucket, Prefix=f"{folder}/".lstrip("/")):
            begun = told["Initiated"].timestamp()
            if begun < before:
                upload = {"Bucket": bucket, "Key": told["Key"], "UploadId": told["UploadId"]}
                size = sum(part["Size"] for part in self._pages("list_parts", "Parts", **upload))
                found.append(Entry(told["Key"][len(folder) :].lstrip("/"), size, begun))
                if remove:
                    self._ask("absent", "call_s3", "abort_multipart_upload", **upload)
        return sorted(found)

    def list(self, prefix: str) -> list[str]:
        """See `Objects.list`."""
        return [entry.key for entry in self.entries(prefix)]

    def delete(self, key: str) -> None:
        """See `Objects.delete`."""
        self._ask("absent", "rm_file", self._path(key))

    def upload(self, source: Path, key: str) -> Copied:
        """See `Files.upload`."""
        return self._fast.upload(source, self._path(key)) or self._upload(source, key)

    def download(self, key: str, target: Path, size: int) -> Copied | None:
        """See `Files.download`."""
        return self._fast.download(self._path(key), target, size) or self._download(key, target, size)

    def _upload(self, source: Path, key: str) -> Copied:
        """Copies a file over fsspec; in parts, so that a large file costs memory for one part."""
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

    def _download(self, key: str, target: Path, size: int) -> Copied | None:
        """Copies an object over fsspec; range by range, so that a large file costs memory for one range."""
        digest, done = hashlib.sha256(), 0
        with target.open("wb") as file:
            while done < size:
                part = self._range(key, done, min(done + _PART, size))
                if part is None:
                    return None
                if not part:
                    break
                done += file.write(part)
                digest.update(part)
        return Copied(done, digest.hexdigest())

    def _range(self, key: str, start: int, end: int) -> bytes | None:
        """A part of an object, empty behind its end; None where the object is absent."""
        part = self._ask("absent", "cat_file", self._path(key), start=start, end=end, size=end - start)
        return None if part is _EXPECTED else bytes(part)

    def _pages(self, method: str, what: str, **where: Any) -> Iterator[Any]:
        """What S3 lists in pages; nothing on other stores, and of what is not there any more."""
        more = self._cloud == "s3"
        while more:
            page = self._ask("absent", "call_s3", method, **where)
            if page is _EXPECTED:
                return
            yield from page.get(what, ())
            more = page.get("IsTruncated", False)
            where |= {name.removeprefix("Next"): page[name] for name in page if name.startswith("Next")}

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _ask(self, expected: Kind | None, name: str, *args: Any, size: int = 0, **options: Any) -> Any:
        """Sends one request and waits for the answer; `_EXPECTED` where it is of the expected kind."""
        what = f"{_VERBS[name]} {args[0].removeprefix(self._root).lstrip('/')}".rstrip()
        sending = self._patience + size / _SLOWEST
        limit = sending if name in {"pipe_file", "rm_file"} else self._read_patience
        try:
            with self._translated(expected):
                files = self._filesystem()
                request = getattr(files, f"_{name}")(*args, **options)
                future = asyncio.run_coroutine_threadsafe(request, files.loop)
                try:
                    return self._answer(future, limit, _QUIET + size / _SLOWEST, what)
                except BaseException:
                    future.cancel()  # or a request that nobody waits for would go on, and could land
                    raise
        except _ExpectedReply:
            return _EXPECTED
        except _BehindTheEnd:
            return b""

    def _answer(self, future: Future[Any], limit: float, quiet: float, what: str) -> Any:
        """Waits for an answer, and says so before a person who looks on thinks that nothing happens."""
        if quiet < limit and not wait([future], quiet).done:
            _log.warning("%s: no answer yet, waiting up to %.0f s to %s", self.url, limit, what)
            limit -= quiet
        return future.result(limit)

    def _filesystem(self) -> Any:
        """The file system of this process: one that was made before a fork refuses to work after it."""
        if self._made is None or self._made[0] != os.getpid():
            self._made = (os.getpid(), connect(self._cloud, self._class, self._options))
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
            if found.kind == "ended":
                raise _BehindTheEnd from None
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
        hidden = {value for name, value in os.environ.items() if _SECRET.search(name)}
        secrets = self._secrets | hidden | {part for value in hidden for part in _IN_CONNECTION.findall(value)}
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= _LONG_ENOUGH:
                text = text.replace(secret, "***")
        return text


def _modified(told: dict[str, Any]) -> float:
    when = next(told[name] for name in _MODIFIED if name in told)
    return (datetime.fromisoformat(when) if isinstance(when, str) else when).timestamp()


class _ExpectedReply(Exception):
    """The reply that the caller asked about."""


class _BehindTheEnd(Exception):
    """The reply to a range where the object has no byte; of an empty object that is every range."""
