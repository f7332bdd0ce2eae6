"""Whether Prefect's server can run here, and whether one answers: what else fails later, and less plainly.

This module must not start a server, and must not change anything.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

from tune_tasks.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_BOUND_BY = ("prefect", "tune-tasks-prefect")
"""The distributions that say with which fastapi the server starts; Prefect itself says so from 3.9 on."""


def unfit() -> str | None:
    """Why Prefect's server would not start in this environment, and what to install; None where it would."""
    from packaging.requirements import Requirement

    try:
        installed = version("fastapi")
    except PackageNotFoundError:
        return None  # prefect-client alone, which has no server
    for name in _BOUND_BY:
        try:
            needs = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:
            continue
        for need in needs:
            fits = need.specifier.contains(installed, prereleases=True)
            if need.name == "fastapi" and not need.marker and not fits:
                told = f"fastapi {installed} is installed, with which Prefect {version('prefect')} starts no server"
                return f"{told}; pip install 'fastapi{need.specifier}'"
    return None


def named() -> str:
    """The address of the server. Raises `ConfigError` where none is set: a server for one command keeps no watch."""
    from prefect.settings import get_current_settings

    address = get_current_settings().api.url
    if not address:
        told = "PREFECT_API_URL is not set; start a server (prefect server start), and name it: "
        raise ConfigError(_with_reason(f"{told}prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api"))
    return address


def answering(client: SyncPrefectClient) -> str:
    """The version of the server at the other end. Raises `Unavailable` where none answers."""
    error = client.api_healthcheck()
    if error is not None:
        told = f"no Prefect server answers at {client.api_url}: {error or type(error).__name__}"
        raise Unavailable(_with_reason(f"{told}; start one: prefect server start"))
    return str(client.api_version())


def forgetful(client: SyncPrefectClient) -> str | None:
    """What a server that is killed loses, and the setting that keeps it; None where that is nothing, or not known."""
    try:
        told = client.request("GET", "/admin/settings").json()["server"]["concurrency"]["lease_storage"]
    except Exception:  # noqa: BLE001  # a server may not tell its settings to everyone
        return None
    if not told.endswith(".memory"):
        return None
    setting = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect.server.concurrency.lease_storage.filesystem"
    return f"If the server is killed, slots of a limit stay taken by nobody; start it with {setting}"


def _with_reason(told: str) -> str:
    reason = unfit()
    return f"{told}. Here that would fail: {reason}" if reason else told
