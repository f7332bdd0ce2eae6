"""Blocks for the store of studies and for the Ray cluster: what a deployment names instead of holding a secret.

A secret stays in its block, in the requests, and in what a Ray job is submitted with. This module must not put one into
the environment of this process, where the tasks of another store run too, and must not load the engine before a block
is used: Prefect's server loads it to know the types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict
from pydantic import Field, SecretStr, ValidationError, model_validator

from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks_prefect.other_blocks import Told, google_key, reader

if TYPE_CHECKING:
    from tune_tasks.execution.jobs import Dashboard

B = TypeVar("B", bound=Block)

_STORE, _CLUSTER = "study-store", "ray-cluster"
_NONE = SecretStr("")


class StudyStore(Block):
    """Where studies are kept, and who may read and write there: a folder, S3, Google, Azure or PostgreSQL.

    Fill in what the store needs and leave the rest; with a role of the machine, or a folder, no secret is needed.
    """

    _block_type_name = "Study Store"
    _block_type_slug = _STORE
    _code_example = """
        ```python
        from tune_tasks_prefect import StudyStore, tune

        StudyStore(url="s3://bucket/studies", aws_access_key_id="...", aws_secret_access_key="...").save("prod")

        tune("study.yaml", store="prod")
        ```"""

    url: str = Field(
        default="",
        title="URL",
        description="Where specs have their studies, in place of their own `store`: s3://bucket/studies, or a folder.",
    )
    credentials: str = Field(
        default="",
        description="Another block that has the credentials, as type/name: aws-credentials/prod, gcp-credentials/prod, "
        "azure-blob-storage-credentials/prod. Then leave the fields below.",
    )
    aws_access_key_id: str = Field(default="", title="AWS access key id", description="S3: the key.")
    aws_secret_access_key: SecretStr = Field(default=_NONE, title="AWS secret access key", description="Its secret.")
    aws_session_token: SecretStr = Field(default=_NONE, title="AWS session token", description="Of a short-lived key.")
    aws_region: str = Field(default="", title="AWS region", description="S3: the region, as eu-central-1.")
    aws_endpoint_url: str = Field(default="", title="S3 endpoint", description="S3 of another maker: its address.")
    google_key: SecretDict = Field(
        default_factory=lambda: SecretDict({}), description="Google: the content of a service account's key file."
    )
    google_key_path: str = Field(
        default="",
        description="Google: the path of such a file instead, on every machine of the cluster.",
    )
    azure_account_name: str = Field(default="", description="Azure: the storage account.")
    azure_account_key: SecretStr = Field(default=_NONE, description="Azure: its key.")
    azure_sas_token: SecretStr = Field(default=_NONE, title="Azure SAS token", description="Azure: or a signature.")
    azure_connection_string: SecretStr = Field(default=_NONE, description="Azure: or all of it in one line.")
    postgres_user: str = Field(default="", description="PostgreSQL: the user.")
    postgres_password: SecretStr = Field(default=_NONE, description="PostgreSQL: the password.")

    @model_validator(mode="after")
    def _closed(self) -> Self:
        return _closed(self)

    def told(self) -> Told:
        """What the block says; its credentials as the environment variables that a store's client reads."""
        other = _other(self.credentials) if self.credentials else Told()
        own = {
            "AWS_ACCESS_KEY_ID": self.aws_access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.aws_secret_access_key.get_secret_value(),
            "AWS_SESSION_TOKEN": self.aws_session_token.get_secret_value(),
            "AWS_DEFAULT_REGION": self.aws_region,
            "AWS_ENDPOINT_URL": self.aws_endpoint_url,
            "GOOGLE_APPLICATION_CREDENTIALS": self.google_key_path,
            "AZURE_STORAGE_ACCOUNT_NAME": self.azure_account_name,
            "AZURE_STORAGE_ACCOUNT_KEY": self.azure_account_key.get_secret_value(),
            "AZURE_STORAGE_SAS_TOKEN": self.azure_sas_token.get_secret_value(),
            "AZURE_STORAGE_CONNECTION_STRING": self.azure_connection_string.get_secret_value(),
            "PGUSER": self.postgres_user,
            "PGPASSWORD": self.postgres_password.get_secret_value(),
            **google_key(self.google_key.get_secret_value()),
        }
        said = {name: value for name, value in own.items() if value}
        return Told(self.url or other.place, {**other.variables, **said})


class RayCluster(Block):
    """A Ray cluster that takes jobs: the address of its dashboard, a token, and how its certificate is checked."""

    _block_type_name = "Ray Cluster"
    _block_type_slug = _CLUSTER
    _code_example = """
        ```python
        from tune_tasks_prefect import RayCluster

        RayCluster(address="https://ray.example.org", token="...").save("prod")

        print(RayCluster.load("prod").version())
        ```"""

    address: str = Field(description="Of the cluster's dashboard: http://head:8265.", examples=["http://head:8265"])
    token: SecretStr = Field(default=_NONE, description="Sent along as a bearer token, where the cluster asks for one.")
    headers: SecretDict = Field(
        default_factory=lambda: SecretDict({}), description="Sent along too, for a proxy in front of the cluster."
    )
    certificates: str = Field(
        default="", description="Path of the authorities that the cluster's certificate is checked against, on workers."
    )
    verify: bool = Field(default=True, description="Whether the certificate is checked at all.")

    @model_validator(mode="after")
    def _closed(self) -> Self:
        return _closed(self)

    def dashboard(self) -> Dashboard:
        """Where the cluster takes jobs. Raises `ConfigError` for an address that is none."""
        from tune_tasks.execution.jobs import Dashboard

        if not self.address.startswith(("http://", "https://")):
            raise ConfigError(
                f"cluster: address {self.address!r} is not allowed; give the dashboard's, http://head:8265"
            )
        token = self.token.get_secret_value()
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        headers = {**self.headers.get_secret_value(), **bearer}
        return Dashboard(self.address.rstrip("/"), headers, (self.certificates or True) if self.verify else False)

    def version(self) -> str:
        """The version of Ray that answers there: a test of the block. Raises `Unavailable` and `ConfigError`."""
        from tune_tasks.execution.jobs import Jobs

        return Jobs(self.dashboard()).version()


def variables(store: str | None) -> dict[str, str]:
    """The environment variables by which a store's client gets the credentials of a block; none without a block.

    `store` is the name of a `StudyStore`, or type/name of a block of Prefect's or of another collection, such as
    s3-bucket/prod. Raises `ConfigError` where there is no such block, and `Unavailable` where Prefect does not answer.
    """
    return {} if store is None else _plain(_told(store))


@contextmanager
def opened(store: str | None) -> Iterator[str | None]:
    """Has this thread open studies with the credentials of a block, whatever those of other threads are.

    Gives the URL below which specs have their studies, where the block says so: it stands for a spec's own `store`.
    Without a block, nothing is changed. A thread that is started inside has the credentials too where it gets a copy
    of the context, as from `asyncio.to_thread`. Raises as `variables`.
    """
    if store is None:
        yield None
        return
    from tune_tasks.store.credentials import using

    said = _told(store)
    with using(_plain(said)):
        yield said.place


def dashboard_of(cluster: str | None, address: str | None) -> Dashboard:
    """The dashboard at an address, with the token and certificate of a `RayCluster` where one is named.

    Without an address it is that of the block. Raises `ConfigError` where there is neither, or no such block.
    """
    from tune_tasks.execution.jobs import Dashboard

    if cluster is None:
        return Dashboard.of(address)
    code = f'RayCluster(address="http://head:8265").save("{cluster}")'
    data = _read(_CLUSTER, cluster, "cluster", code)
    found = _made(RayCluster, data, "cluster", cluster).dashboard()
    return replace(found, address=address.rstrip("/")) if address else found


def _told(store: str) -> Told:
    """What the block says that `store` names."""
    kind, _, name = store.rpartition("/")
    if kind not in {"", _STORE}:
        return _other(store)
    code = f'StudyStore(url="s3://bucket/studies", aws_access_key_id="...").save("{name}")'
    return _made(StudyStore, _read(_STORE, name, "store", code), "store", name).told()


def _plain(said: Told) -> dict[str, str]:
    return {name: str(value) for name, value in said.variables.items() if value}


def _other(name: str) -> Told:
    """What the block of another collection says that a `StudyStore` takes its credentials from."""
    kind, _, rest = name.rpartition("/")
    if kind in {"", _STORE}:
        raise ConfigError(
            f"store: credentials {name!r} is not allowed; give a block as type/name: aws-credentials/prod"
        )
    return reader(kind)(_read(kind, rest, "store"))


def _closed(block: B) -> B:
    """The block, if it has no field that nobody reads: Prefect would drop a misspelt secret without a word."""
    unknown = [name for name in block.model_extra or () if not name.startswith("_") and name != "block_type_slug"]
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is not allowed; allowed are {', '.join(type(block).model_fields)}")
    return block


def _made(of: type[B], data: Mapping[str, Any], path: str, name: str) -> B:
    try:
        return of.model_validate(data)
    except ValidationError as error:  # its text may quote a secret
        fields = ", ".join(sorted({".".join(map(str, one["loc"])) or "a field" for one in error.errors()}))
        raise ConfigError(f"{path}: {fields} of the block {name!r} is not allowed; save it again") from None


def _read(kind: str, name: str, path: str, code: str = "") -> dict[str, Any]:
    """The data of a block, with its secrets; `path` and `code` are for who has to make it."""
    with get_client(sync_client=True) as client:
        try:
            return dict(client.read_block_document_by_name(name, kind, include_secrets=True).data)
        except ObjectNotFound:
            made = f"make it in the UI (prefect block create {kind})" + (f" or in Python: {code}" if code else "")
            raise ConfigError(f"{path}: {client.api_url} has no block {name!r} of type {kind!r}; {made}") from None
        except Exception as error:
            raise Unavailable(f"{path}: the block {name!r} cannot be read from {client.api_url}: {error}") from error
