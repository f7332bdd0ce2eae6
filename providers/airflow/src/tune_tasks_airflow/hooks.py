"""The connection to a Ray cluster that takes jobs: its dashboard's address, a token, how its certificate is checked.

The token stays in the connection and in the requests. This module must not load the engine before a connection is
used: Airflow imports it to show the form.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

if TYPE_CHECKING:
    from tune_tasks.execution.jobs import Dashboard, Jobs

PORT = 8265
"""Of Ray's dashboard."""


class RayJobsHook(BaseHook):
    """Speaks with the Ray cluster of a connection of type `ray_jobs`, over HTTP and without Ray."""

    conn_name_attr = "ray_conn_id"
    default_conn_name = "ray_default"
    conn_type = "ray_jobs"
    hook_name = "Ray cluster (tune_tasks)"

    def __init__(self, ray_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.ray_conn_id = ray_conn_id

    def dashboard(self) -> Dashboard:
        """Where the cluster takes jobs. Raises `ConfigError` where the connection is not there, or has no host."""
        from tune_tasks.errors import ConfigError
        from tune_tasks.execution.jobs import Dashboard

        command = f"airflow connections add {self.ray_conn_id} --conn-type {self.conn_type}"
        made = f"make it with: {command} --conn-host http://head --conn-port {PORT}"
        try:
            connection = self.get_connection(self.ray_conn_id)
        except Exception as error:
            raise ConfigError(f"ray_conn_id: there is no connection {self.ray_conn_id!r} ({error}); {made}") from error
        if not connection.host:
            raise ConfigError(f"ray_conn_id: connection {self.ray_conn_id!r} has no host; {made}")
        extra = connection.extra_dejson
        verify = extra.get("verify", True)
        if isinstance(verify, str) and verify.lower() in {"true", "false"}:
            verify = verify.lower() == "true"
        token = connection.password
        return Dashboard(
            _address(connection),
            {**extra.get("headers", {}), **({"Authorization": f"Bearer {token}"} if token else {})},
            verify,
        )

    def get_conn(self) -> Jobs:
        """The jobs of the cluster."""
        from tune_tasks.execution.jobs import Jobs

        return Jobs(self.dashboard())

    def test_connection(self) -> tuple[bool, str]:
        """What the Test button of the form shows: the cluster's version, or why it does not answer."""
        from tune_tasks.errors import TuneError

        try:
            return True, f"Ray {self.get_conn().version()} answers at {self.dashboard().address}"
        except TuneError as error:
            return False, str(error)


def dashboard_of(ray_conn_id: str | None, address: str | None) -> Dashboard:
    """The dashboard at an address, with the token and certificate of a connection where one is named.

    Without an address it is that of the connection. Raises `ConfigError` as `RayJobsHook.dashboard` and `Dashboard.of`.
    """
    from tune_tasks.execution.jobs import Dashboard

    if ray_conn_id is None:
        return Dashboard.of(address)
    found = RayJobsHook(ray_conn_id).dashboard()
    return replace(found, address=address.rstrip("/")) if address else found


def _address(connection: Any) -> str:
    """The dashboard's address, however the form was filled in."""
    host = str(connection.host).rstrip("/")
    scheme, _, name = host.rpartition("://")
    port = "" if ":" in name else f":{connection.port or PORT}"
    return f"{scheme or connection.schema or 'http'}://{name}{port}"
