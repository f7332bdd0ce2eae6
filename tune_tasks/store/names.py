"""What may be a key and what may be a URL, and how both are shown: a URL always without its secrets. Pure, no I/O."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from tune_tasks.errors import ConfigError, invalid

TEMPORARY = ".tmp-"
"""What the names of unfinished local files begin with; no key has such a part, so no listing shows one."""

POSTGRES = {"postgresql", "postgres"}
"""The schemes of a database, whose address may have a '::' in it."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
# The first part has no slash, so that an '@' far down a path is not taken for the end of credentials.
_CREDENTIALS = re.compile(r"([^/:@]*):(.*)@", re.DOTALL)
_DOTTED = re.compile(r"%2e", re.IGNORECASE)


class Entry(NamedTuple):
    """An object as a listing shows it: `size` in bytes, `modified` in seconds since the epoch by the store's clock."""

    key: str
    size: int
    modified: float


class Credentials(NamedTuple):
    """The two halves of `user:password@`, decoded."""

    user: str
    password: str


def check_key(key: str) -> str:
    """Returns a key that stays below its root on every backend; raises `ConfigError` otherwise."""
    parts = key.split("/")
    if any(part in {"", ".", ".."} or part.startswith(TEMPORARY) for part in parts) or not _plain(key):
        raise invalid("key", key, "a key is a relative path of printable names, without '.', '..', '%2e' and '\\'")
    return key


def check_prefix(prefix: str) -> str:
    """Returns what keys may begin with: nothing, or a key, complete or cut off."""
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


def split_url(url: str) -> tuple[str, str]:
    """Splits a store's URL into its scheme in small letters and the rest; a local path has the scheme `file`.

    Raises `ConfigError` where it cannot be the URL of a store; the message shows no credentials.
    """
    match = _URL.fullmatch(url)
    if match is None:
        return "file", _local(url)
    scheme, rest = match[1].lower(), match[2]
    if scheme in {"file", "local"}:
        return "file", _local(rest)
    shown = shown_url(url)
    if scheme in POSTGRES:
        if "?" in rest or "#" in rest:
            raise invalid(
                "store", shown, "a URL has no '?' or '#'; settings come from the environment: PGSSLMODE=require"
            )
    elif "?" in rest or "#" in rest or "::" in rest:
        raise invalid("store", shown, "a URL has no '?', '#' or '::'; credentials come from the environment")
    place, _ = split_credentials(rest)
    if not place.strip("/"):
        raise invalid("store", shown, "a URL names a bucket or a folder after '://'")
    if not _plain(place) or any(part in {".", ".."} for part in place.split("/")):
        raise invalid("store", shown, "a URL has printable names, without '.', '..', '%2e' and '\\'")
    return scheme, rest


def split_credentials(rest: str) -> tuple[str, Credentials | None]:
    """Takes `user:password@` off the front of what follows `://`."""
    match = _CREDENTIALS.match(rest)
    if match is None:
        return rest, None
    return rest[match.end() :], Credentials(unquote(match[1]), unquote(match[2]))


def has_credentials(url: str) -> bool:
    """Tells whether a URL holds credentials, which reach only the process that was given the URL."""
    match = _URL.fullmatch(url)
    return match is not None and split_credentials(match[2])[1] is not None


def shown_url(url: str) -> str:
    """The URL as it may be shown: without credentials, and without a query, which can hold a signature."""
    match = _URL.fullmatch(url)
    if match is None:
        return url
    place, _ = split_credentials(match[2])
    return f"{match[1].lower()}://{re.split('[?#]', place)[0].rstrip('/')}"


def _local(path: str) -> str:
    if not path or "\0" in path:
        raise invalid("store", path, "must be a path or a URL")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", path):
        raise ConfigError(f"store: {path!r} has no '//' after its scheme; a local path with ':' starts with './'")
    return path


def _plain(text: str) -> bool:
    return text.isprintable() and "\\" not in text and not _DOTTED.search(text)
