"""The clients of three clouds, set so that they neither cache nor try again, nor hide what a server said.

What is tried again is for `retry` alone to decide, count, log and end. Must not know what is stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, TypeAlias

import fsspec

from tune_tasks.errors import ConfigError, invalid

Cloud: TypeAlias = Literal["s3", "gcs", "azure"]

CLOUDS: dict[str, Cloud] = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "abfs": "azure",
    "abfss": "azure",
    "az": "azure",
}
"""The schemes whose file system is known to pass the condition on; a cloud is called like the extra that installs it.

fsspec has many more, but their create looks first and writes then: it would pass the probe and lose a race.
"""

_VARIABLES: dict[Cloud, dict[str, str]] = {
    "s3": {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
        "AWS_ENDPOINT_URL": "endpoint_url",
    },
    "gcs": {"GOOGLE_APPLICATION_CREDENTIALS": "token"},
    "azure": {
        "AZURE_STORAGE_ACCOUNT_NAME": "account_name",
        "AZURE_STORAGE_ACCOUNT_KEY": "account_key",
        "AZURE_STORAGE_SAS_TOKEN": "sas_token",
        "AZURE_STORAGE_CONNECTION_STRING": "connection_string",
    },
}
"""How a file system calls what an environment variable holds."""

WHOLE_KEY = "FSSPEC_GCS"
"""fsspec's own variable with options of Google's file system, as JSON: {"token": the content of a key file}."""

_CONNECT, _READ = 5, 10
"""Seconds for a connection, and for the next bytes on it."""
_LONGEST = 300

# One more try is botocore's. With more than one range at once s3fs asks for the size first: a second request, whose
# 404 does not say whether the bucket or the key is absent.
_S3: dict[str, Any] = {
    "config_kwargs": {
        "connect_timeout": _CONNECT,
        "read_timeout": _READ,
        "max_pool_connections": 32,
        "retries": {"total_max_attempts": 2, "mode": "standard"},
    },
    "max_concurrency": 1,
}
_AZURE: dict[str, Any] = {"connection_timeout": _CONNECT, "read_timeout": _READ}


class Refused(Exception):
    """A reply of Google's storage with its status, which gcsfs itself drops for some, and tries again for others."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def implementation(scheme: str, shown: str) -> Any:
    """The class of a file system. Raises `ConfigError` for an unknown scheme and for a missing package."""
    if scheme not in CLOUDS:
        known = ("file", "memory", *CLOUDS)
        allowed = f"allowed are a local path and the schemes {', '.join(known)}"
        raise invalid("store", shown, allowed, [f"{name}{shown[len(scheme) :]}" for name in known])
    cloud = CLOUDS[scheme]
    try:
        if cloud == "gcs":
            # Not the class that fsspec knows: before each request that one asks another service for the bucket's kind.
            from gcsfs.core import GCSFileSystem

            return GCSFileSystem
        return fsspec.get_filesystem_class(scheme)
    except ImportError:
        raise ConfigError(
            f"store: {shown} needs a package that is not installed; install it with pip install 'tune-tasks[{cloud}]'"
        ) from None


def options(cloud: Cloud, variables: Mapping[str, str]) -> dict[str, Any]:
    """What a file system takes for environment variables that are not this process's own."""
    given: dict[str, Any] = {option: variables[name] for name, option in _VARIABLES[cloud].items() if name in variables}
    if cloud == "gcs" and WHOLE_KEY in variables:
        given |= json.loads(variables[WHOLE_KEY])
    region = variables.get("AWS_DEFAULT_REGION")
    return given | ({"client_kwargs": {"region_name": region}} if cloud == "s3" and region else {})


def connect(cloud: Cloud, of: Any, options: dict[str, Any]) -> Any:
    """A new file system of a class; none is shared, and it keeps no listings."""
    options = options | {"use_listings_cache": False, "skip_instance_cache": True}
    match cloud:
        case "s3":
            made = of(**options, **_S3)
            made.retries = 1
        case "azure":
            made = of(**options, **_AZURE)
            # Azure's own client waits 15 s before each of three more tries.
            made.service_client._config.retry_policy.total_retries = 0  # noqa: SLF001  # adlfs has no option for it
            made._find = partial(_find_blobs, made.service_client)  # noqa: SLF001  # see there
        case "gcs":
            from aiohttp import ClientTimeout

            timeout = ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_READ)
            made = of(**options, requests_timeout=timeout, session_kwargs={"raise_for_status": _refuse})
    return made


async def _find_blobs(service: Any, path: str, *, prefix: str, **_more: Any) -> dict[str, dict[str, Any]]:
    """Lists blobs. adlfs asks twice, waits for ever, lists more, and says that a container that is absent is empty."""
    container, _, folder = path.partition("/")
    start = f"{folder}/{prefix}".lstrip("/")
    async with service.get_container_client(container) as client:
        blobs = [blob async for blob in client.list_blobs(name_starts_with=start, include=["metadata"], **_AZURE)]
    told = {f"{container}/{blob.name}": {"size": blob.size, "last_modified": blob.last_modified} for blob in blobs}
    # Accounts with a hierarchical namespace show a folder as a blob of its own.
    folders = {f"{container}/{blob.name}" for blob in blobs if "hdi_isfolder" in map(str.lower, blob.metadata or ())}
    return {name: told[name] for name in told if name not in folders}


async def _refuse(reply: Any) -> None:
    """Raises what the server said. An absent object is gcsfs's own to tell, and so is a token that it renews."""
    if reply.status >= 400 and reply.status not in {401, 404}:
        raise Refused(reply.status, (await reply.text(errors="replace"))[:_LONGEST])
