"""Which registry a study promotes to. Pure but for one environment variable; nothing is opened here."""

from __future__ import annotations

import os
from pathlib import Path

from tune_tasks.errors import ConfigError
from tune_tasks.store.names import shown_url, split_url


def default_uri(registry: str | None, store: str) -> str | None:
    """The registry that the spec names, else MLFLOW_TRACKING_URI, else a SQLite file in a local store.

    None means no registry: the spec says 'none', or the store is in memory, which nothing outlives.
    Raises `ConfigError` for a remote store where neither is given: there is no place for a database.
    """
    given = registry or os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return None if given == "none" else given
    scheme, rest = split_url(store)
    match scheme:
        case "file":
            return f"sqlite:///{Path(rest).expanduser().resolve() / 'mlflow.db'}"
        case "memory":
            return None
        case _:
            raise ConfigError(
                f"promotion.registry: missing; {shown_url(store)} has no place for a database. Give the URI of an "
                "MLflow server, set MLFLOW_TRACKING_URI, or write 'none' to publish the model's folder alone"
            )
