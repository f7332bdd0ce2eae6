"""Questions to Prefect's server that nobody may have to wait for. This module must not change a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

_SECONDS = 10.0
"""That the server has for an answer."""


@contextmanager
def impatient() -> Iterator[SyncPrefectClient]:
    """A client that asks once, where Prefect's own tries for a minute."""
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client({"timeout": _SECONDS}, True) as client:  # noqa: FBT003  # as it is overloaded
        yield client
