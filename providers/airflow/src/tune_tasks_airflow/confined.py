"""Which studies Airflow's UI may show: those below the stores that its configuration lists, and no other place.

This module must not open anything, and must not show a user the stores that are listed.
"""

from __future__ import annotations

from pathlib import Path

from airflow.configuration import conf

NOTHING = (
    "Airflow's configuration lists no store whose studies may be shown here. Set stores in section [tune_tasks] to "
    "their URLs or folders, with commas between them: AIRFLOW__TUNE_TASKS__STORES=s3://bucket/studies"
)
ELSEWHERE = "study URL: this is not below one of the stores whose studies may be shown here ([tune_tasks] stores)"


def stores() -> list[str]:
    """The stores whose studies may be shown."""
    listed = conf.get("tune_tasks", "stores", fallback="") or ""
    return [store.strip() for store in listed.split(",") if store.strip()]


def confined(url: str) -> str:
    """The URL as it is opened, where it lies below a store that may be shown: of a local study the real path.

    Raises `ConfigError` for what cannot be the URL of a study, and `PermissionError` for one that lies elsewhere.
    """
    from tune_tasks.errors import ConfigError
    from tune_tasks.store.names import has_credentials

    allowed = stores()
    if not allowed:
        raise PermissionError(NOTHING)
    if has_credentials(url):
        raise ConfigError("study URL: it has credentials in it; give it without, they come from a connection")
    place = _parts(url)
    if not any(_below(place, _parts(_at_home(store))) for store in allowed):
        raise PermissionError(ELSEWHERE)
    scheme, *rest = place
    return str(Path(*rest)) if scheme == "file" else f"{scheme}://{'/'.join(rest)}"


def _parts(url: str) -> tuple[str, ...]:
    """The scheme, and each part of the path after it; of a local path where its links lead."""
    from tune_tasks.store.names import POSTGRES, split_credentials, split_url

    scheme, rest = split_url(url)
    if scheme == "file":
        return (scheme, *Path(rest).resolve().parts)
    place, _ = split_credentials(rest)
    return ("postgresql" if scheme in POSTGRES else scheme, *place.rstrip("/").split("/"))


def _at_home(store: str) -> str:
    return str(Path(store).expanduser()) if store.startswith("~") else store


def _below(place: tuple[str, ...], store: tuple[str, ...]) -> bool:
    return len(place) > len(store) and place[: len(store)] == store
