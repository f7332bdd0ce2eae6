"""Makes the obstore that reaches what a file system of fsspec reaches: the same address, with the same credentials.

Both are taken from the client that fsspec has made, and never looked up a second time: its profiles, roles, files and
variables are not obstore's. Where that leaves a doubt, `Unsure` is raised. This module must not log or show a value.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

_CLIENT: Any = {
    "allow_http": True,  # the address says whether; obstore asks for a second yes
    "connect_timeout": timedelta(seconds=5),
    "timeout": timedelta(seconds=30),  # for one part; what is slower goes over fsspec
}
# Short: whoever called tries again for as long as it has patience, and says so while it waits.
_RETRY: Any = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=1), "base": 2},
}
_ANSWER = 30.0
_KEPT = timedelta(minutes=10)
"""How long credentials of S3 are good for: botocore renews its own while there is more than this left of them."""
_AZURE_SCOPE = "https://storage.azure.com/.default"


class Unsure(Exception):
    """It is not certain that obstore would reach the same place with the same rights."""


def connect(extra: str, filesystem: Any, bucket: str) -> Any:
    """Makes the store of a bucket; asks no server for it, except where credentials have to be fetched."""
    return {"s3": _s3, "gcs": _gcs, "azure": _azure}[extra](filesystem, bucket)


def _s3(filesystem: Any, bucket: str) -> Any:
    from obstore.store import S3Store

    client = filesystem.s3
    credentials = client._request_signer._credentials  # noqa: SLF001  # what signs the requests of s3fs
    address, region = _address(filesystem, client, bucket)
    if credentials is None or client.meta.config.signature_version != "s3v4":
        raise Unsure(f"requests are signed in another way ({client.meta.config.signature_version})")

    def provide() -> Any:
        found = _waited(filesystem, credentials.get_frozen_credentials())
        expires = datetime.now(UTC) + _KEPT
        return {
            "access_key_id": found.access_key,
            "secret_access_key": found.secret_key,
            "token": found.token,
            "expires_at": expires,
        }

    return S3Store(
        bucket,
        # The address has the bucket in it, wherever that belongs: as in "virtual hosted", nothing is added to it.
        config={"endpoint": address, "virtual_hosted_style_request": True, "region": region, "skip_signature": False}
        | _against_environment(address),
        client_options=_CLIENT | _authorities(filesystem.session.get_config_variable("ca_bundle")),
        retry_config=_RETRY,
        credential_provider=provide,
    )


def _against_environment(address: str) -> Any:
    """The variable for S3 alone would win over `endpoint`; obstore before 0.12 knows neither it nor its setting."""
    return {"aws_endpoint_url_s3": address} if "AWS_ENDPOINT_URL_S3" in os.environ else {}


def _address(filesystem: Any, client: Any, bucket: str) -> tuple[str, str]:
    """Where botocore would send the requests for objects of a bucket, and the region that it would sign them for."""
    operation = client.meta.service_model.operation_model("PutObject")
    about = {"client_region": client.meta.region_name, "client_config": client.meta.config, "auth_type": "v4"}
    resolved = client._resolve_endpoint_ruleset(operation, {"Bucket": bucket, "Key": "key"}, about)  # noqa: SLF001
    address, headers, properties = _waited(filesystem, resolved)
    signed = [scheme for scheme in properties.get("authSchemes", ()) if scheme["name"] == "sigv4"]
    if headers or not signed or "backend" in properties or ":" in bucket:
        raise Unsure("the bucket is of a special kind")
    return address, signed[0]["signingRegion"]


def _authorities(file: str | None) -> Any:
    return {"root_certificate": Path(file).read_bytes()} if file else {}


def _gcs(filesystem: Any, bucket: str) -> Any:
    from obstore.store import GCSStore

    found = filesystem.credentials
    if found.credentials is None:
        raise Unsure("there are no credentials")

    def provide() -> Any:
        found.maybe_refresh()
        expiry = found.credentials.expiry  # in UTC, which it does not say
        return {"token": found.credentials.token, "expires_at": expiry and expiry.replace(tzinfo=UTC)}

    return GCSStore(
        bucket,
        config={"base_url": filesystem._location, "skip_signature": False},  # noqa: SLF001  # an emulator, or Google
        client_options=_CLIENT,
        retry_config=_RETRY,
        credential_provider=provide,
    )


def _azure(filesystem: Any, container: str) -> Any:
    from obstore.store import AzureStore

    client = filesystem.service_client
    url = urlsplit(client.url)
    config: Any = {
        "account_name": client.account_name,
        "endpoint": urlunsplit(url._replace(path=url.path.rstrip("/"), query="")),
        "skip_signature": False,
    }
    provide: Callable[[], Any] | None = None
    if key := getattr(client.credential, "account_key", None):
        config["account_key"] = key
    elif url.query:
        config["sas_key"] = url.query
    elif filesystem.credential is not None and filesystem.credential is client.credential:
        provide = _token(filesystem)
    else:
        raise Unsure("there is neither a key, nor a signature, nor a token")
    return AzureStore(
        container, config=config, client_options=_CLIENT, retry_config=_RETRY, credential_provider=provide
    )


def _token(filesystem: Any) -> Callable[[], Any]:
    def provide() -> Any:
        found = _waited(filesystem, filesystem.credential.get_token(_AZURE_SCOPE))
        return {"token": found.token, "expires_at": datetime.fromtimestamp(found.expires_on, UTC)}

    return provide


def _waited(filesystem: Any, request: Coroutine[Any, Any, Any]) -> Any:
    """Runs on the loop of the file system, to which its clients belong."""
    return asyncio.run_coroutine_threadsafe(request, filesystem.loop).result(_ANSWER)
