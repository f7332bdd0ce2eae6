"""What a block of Prefect's own, or of another collection, says of a store: its place, and who may read and write it.

Such a block is read as plain data, so that neither prefect-aws, prefect-gcp nor prefect-azure need be installed here.
This module must not fetch a block, and must not put a value into an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tune_tasks.errors import ConfigError


class Told(NamedTuple):
    """What a block says: the URL below which studies lie, None where it names none, and variables of an environment."""

    place: str | None = None
    variables: Mapping[str, Any] = {}


def reader(kind: str) -> Callable[[Mapping[str, Any]], Told]:
    """What reads the data of a block of this type, by its slug. Raises `ConfigError` for one that is not known."""
    if kind not in OTHERS:
        known = ", ".join(("study-store", *OTHERS))
        raise ConfigError(f"store: a block of type {kind!r} is not allowed; allowed are {known}")
    return OTHERS[kind]


def google_key(key: Mapping[str, Any]) -> dict[str, str]:
    """The variable by which fsspec gets the content of a key file; Google's own variable has only a path."""
    return {"FSSPEC_GCS": json.dumps({"token": dict(key)})} if key else {}


def _amazon(data: Mapping[str, Any]) -> Told:
    profile = data.get("profile_name")
    if profile and not data.get("aws_access_key_id"):
        raise ConfigError(
            f"store: the block names the profile {profile!r}, which other machines do not have; give it a key, or let "
            "the machines have their role and name no block"
        )
    client = data.get("aws_client_parameters") or {}
    return Told(
        variables={
            "AWS_ACCESS_KEY_ID": data.get("aws_access_key_id") or data.get("minio_root_user"),
            "AWS_SECRET_ACCESS_KEY": data.get("aws_secret_access_key") or data.get("minio_root_password"),
            "AWS_SESSION_TOKEN": data.get("aws_session_token"),
            "AWS_DEFAULT_REGION": data.get("region_name"),
            "AWS_ENDPOINT_URL": client.get("endpoint_url"),
        }
    )


def _google(data: Mapping[str, Any]) -> Told:
    key = data.get("service_account_info") or {}
    key = json.loads(key) if isinstance(key, str) else key
    return Told(variables={"GOOGLE_APPLICATION_CREDENTIALS": data.get("service_account_file"), **google_key(key)})


def _azure(data: Mapping[str, Any]) -> Told:
    host = urlsplit(data.get("account_url") or "").hostname or ""
    return Told(
        variables={
            "AZURE_STORAGE_CONNECTION_STRING": data.get("connection_string"),
            "AZURE_STORAGE_ACCOUNT_NAME": host.partition(".")[0],
        }
    )


def _bucket(scheme: str, of: Callable[[Mapping[str, Any]], Told], *names: str) -> Callable[[Mapping[str, Any]], Told]:
    """For a block with a bucket, a folder in it and a block of credentials, whose fields have these names."""

    def read(data: Mapping[str, Any]) -> Told:
        bucket, folder, credentials = (data.get(name) for name in names)
        return of(credentials or {})._replace(place=f"{scheme}://{bucket}/{folder or ''}".rstrip("/"))

    return read


def _remote(data: Mapping[str, Any]) -> Told:
    """Prefect's file system over fsspec, by the options of which a store is opened too."""
    place, settings = str(data.get("basepath", "")).rstrip("/"), dict(data.get("settings") or {})
    client = settings.get("client_kwargs") or {}
    scheme = place.partition("://")[0]
    if scheme in {"gs", "gcs"}:
        token = settings.get("token")
        own = google_key(token) if isinstance(token, dict) else {"GOOGLE_APPLICATION_CREDENTIALS": token}
        return Told(place, own)
    if scheme in {"az", "abfs", "abfss"}:
        names = ("account_name", "account_key", "sas_token", "connection_string")
        return Told(place, {f"AZURE_STORAGE_{name.upper()}": settings.get(name) for name in names})
    return Told(
        place,
        {
            "AWS_ACCESS_KEY_ID": settings.get("key"),
            "AWS_SECRET_ACCESS_KEY": settings.get("secret"),
            "AWS_SESSION_TOKEN": settings.get("token"),
            "AWS_DEFAULT_REGION": client.get("region_name"),
            "AWS_ENDPOINT_URL": settings.get("endpoint_url") or client.get("endpoint_url"),
        },
    )


def _local(data: Mapping[str, Any]) -> Told:
    return Told(data.get("basepath"))


OTHERS: dict[str, Callable[[Mapping[str, Any]], Told]] = {
    "local-file-system": _local,
    "remote-file-system": _remote,
    "aws-credentials": _amazon,
    "minio-credentials": _amazon,
    "s3-bucket": _bucket("s3", _amazon, "bucket_name", "bucket_folder", "credentials"),
    "gcp-credentials": _google,
    "gcs-bucket": _bucket("gs", _google, "bucket", "bucket_folder", "gcp_credentials"),
    "azure-blob-storage-credentials": _azure,
    "azure-blob-storage-container": _bucket("az", _azure, "container_name", "base_folder", "credentials"),
}
"""The types of blocks that are known, by slug."""
