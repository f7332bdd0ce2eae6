"""The credentials of a study's store from a connection of Airflow's, for the time in which a task uses them.

A connection says who may read and write; where the study is, its URL says. This module must not write a credential
anywhere but into the environment of a task's own process, and into what a Ray job is submitted with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

if TYPE_CHECKING:
    from tune_tasks.store import Objects


def variables(store_conn_id: str | None) -> dict[str, str]:
    """The environment variables that a store's client reads, as a connection has them; none without a connection.

    Connections of Amazon Web Services, Google Cloud, Azure Blob Storage and PostgreSQL are known. Raises `ConfigError`
    for one that is not there, of another type, or that cannot be said by variables.
    """
    from tune_tasks.errors import ConfigError

    if not store_conn_id:
        return {}
    try:
        connection = BaseHook.get_connection(store_conn_id)
    except Exception as error:
        raise ConfigError(
            f"store_conn_id: there is no connection {store_conn_id!r} ({error}); make it with: "
            f"airflow connections add {store_conn_id} --conn-type aws --conn-login KEY --conn-password SECRET"
        ) from error
    of = _TYPES.get(connection.conn_type or "")
    if of is None:
        known = ", ".join(sorted(_TYPES))
        raise ConfigError(f"store_conn_id: {store_conn_id!r} is of type {connection.conn_type!r}; known are {known}")
    return {name: str(value) for name, value in of(connection, connection.extra_dejson).items() if value}


@contextmanager
def opened(store_conn_id: str | None) -> Iterator[None]:
    """Puts a connection's credentials into the environment of this process, and takes them out again."""
    added = variables(store_conn_id)
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def objects(url: str, store_conn_id: str | None) -> Objects:
    """The objects of a study with a connection's credentials, for a process in which others have theirs."""
    from tune_tasks.store import open_objects

    return open_objects(url, variables=variables(store_conn_id))


def _amazon(connection: Any, extra: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "AWS_ACCESS_KEY_ID": connection.login,
        "AWS_SECRET_ACCESS_KEY": connection.password,
        "AWS_SESSION_TOKEN": extra.get("aws_session_token"),
        "AWS_DEFAULT_REGION": extra.get("region_name"),
        "AWS_ENDPOINT_URL": extra.get("endpoint_url"),
    }


def _google(connection: Any, extra: Mapping[str, Any]) -> dict[str, Any]:
    from tune_tasks.errors import ConfigError

    if extra.get("keyfile_dict"):
        raise ConfigError(
            f"store_conn_id: {connection.conn_id!r} holds the key itself; give its path as key_path, on all machines"
        )
    return {"GOOGLE_APPLICATION_CREDENTIALS": extra.get("key_path")}


def _azure(connection: Any, extra: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": connection.login,
        "AZURE_STORAGE_ACCOUNT_KEY": connection.password,
        "AZURE_STORAGE_SAS_TOKEN": extra.get("sas_token"),
        "AZURE_STORAGE_CONNECTION_STRING": extra.get("connection_string"),
    }


def _postgres(connection: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    return {"PGUSER": connection.login, "PGPASSWORD": connection.password}


_TYPES: dict[str, Callable[[Any, Mapping[str, Any]], dict[str, Any]]] = {
    "aws": _amazon,
    "google_cloud_platform": _google,
    "wasb": _azure,
    "adls": _azure,
    "postgres": _postgres,
}
