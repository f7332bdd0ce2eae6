"""The one way into MLflow: quiet, without its global state, and with errors that say what to do.

MLflow is heavy and optional, so it is imported when a connection is opened. Its log lines, progress bars, telemetry
and long retries are off while a call runs, and only then: the process belongs to the user. This module must not know
what a champion or a trial is.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.store.names import TEMPORARY, shown_url

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SETTINGS = {
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""For who would rather come back later than wait for a server that does not answer."""
_MENDABLE = {
    "BAD_REQUEST",
    "ENDPOINT_NOT_FOUND",
    "FEATURE_DISABLED",
    "INVALID_PARAMETER_VALUE",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
}
_ABSENT = {"NOT_FOUND", "RESOURCE_DOES_NOT_EXIST"}
_DATABASES = {"mssql", "mysql", "postgresql"}
_making = threading.Lock()
"""MLflow's migrations are global to a process: two threads would each change the other's database."""


class Connection:
    """A connection to the MLflow tracking server or database at `uri`. Opened by its first call.

    Raises `ConfigError` for what only an edit mends (no MLflow, a wrong URI, no permission), and `Unavailable` where
    the server did not answer; neither message shows a password.
    """

    def __init__(self, uri: str, *, section: str = "promotion.registry", patient: bool = True) -> None:
        """`section` is where the spec has the URI, for messages; not `patient`: no call is tried again by itself."""
        self.uri, self._section = uri, section
        self._settings = _SETTINGS if patient else _SETTINGS | _IMPATIENT
        self.shown = shown_url(uri)
        self.remote = uri.startswith(("http://", "https://", "databricks"))
        self._client: MlflowClient | None = None

    @contextmanager
    def calls(self) -> Iterator[MlflowClient]:
        """Makes calls with the client: quietly, and with errors of ours."""
        with quiet(self._settings):
            try:
                self._client = self._client or self._open()
                yield self._client
            except (ConfigError, Unavailable):
                raise
            except Exception as error:
                explained = self._explain(error)
                if explained is None:
                    raise
                raise explained from None  # the original may show a password

    def experiment(self, name: str, beside: str) -> str:
        """Returns the id of the experiment with this name, made or restored where need be.

        A database has no place of its own for artifacts: they go to `mlartifacts` beside it, where it is a SQLite
        file, or else beside the study at the URL `beside`.
        """
        with self.calls() as client:
            found = client.get_experiment_by_name(name)
            if found is None:
                return self._create(client, name, self._artifacts(beside))
            if found.lifecycle_stage == "deleted":
                client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)

    def _create(self, client: MlflowClient, name: str, artifacts: str | None) -> str:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except Exception:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)  # someone else was faster

    def _open(self) -> MlflowClient:
        try:
            from mlflow import MlflowClient
        except ImportError:
            raise ConfigError(
                f"{self._section}: MLflow is not installed; install tune-tasks[mlflow], or set it to 'none'"
            ) from None
        _hush()
        path = sqlite_path(self.uri)
        if path is not None:
            _ensure_database(path, self._section)
        return MlflowClient(self.uri, registry_uri=self.uri)

    def _artifacts(self, beside: str) -> str | None:
        path = sqlite_path(self.uri)
        if path is not None:
            return (path.parent / "mlartifacts").as_uri()
        if self.uri.partition(":")[0].partition("+")[0] in _DATABASES:
            return f"{beside.rstrip('/').rpartition('/')[0]}/mlartifacts"
        return None

    def _explain(self, error: Exception) -> Exception | None:
        """Turns an exception of MLflow, of its database or of its network into one of ours; None for any other."""
        from mlflow.exceptions import MlflowException

        text = " ".join(str(error).replace(self.uri, self.shown).split())[:600]
        if isinstance(error, ImportError):
            return ConfigError(f"{self._section}: {self.shown} needs a package: {text}")
        if isinstance(error, MlflowException) and error.error_code in _MENDABLE:
            return ConfigError(f"{self._section}: {self.shown} refuses: {text}")
        if isinstance(error, MlflowException | OSError) or type(error).__module__.startswith(
            ("sqlalchemy", "requests")
        ):
            return Unavailable(f"{self.shown}: MLflow did not do as asked: {text}")
        return None


def absent(error: Exception) -> bool:
    """Tells whether MLflow says that there is no such thing, and not that it failed to look."""
    code = getattr(error, "error_code", "")
    return code in _ABSENT or (code == "INVALID_PARAMETER_VALUE" and "not found" in str(error))


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite URI; None for every other URI."""
    scheme, found, path = uri.partition(":///")
    return Path(path).resolve() if found and scheme.partition("+")[0] == "sqlite" else None


def _ensure_database(path: Path, section: str) -> None:
    """Makes sure that a SQLite file can be opened, or made: MLflow would try again for minutes before it said so."""
    try:
        with _making:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                _make_database(path)
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA schema_version")
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"{section}: {path} cannot be used as a database: {error}") from None


def _make_database(path: Path) -> None:
    """Makes MLflow's tables aside and puts the file in place whole.

    Making them takes seconds, and MLflow can never again open a file in which it was killed half-way.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    open_store: Any = SqlAlchemyStore  # it has no types
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        store = open_store(f"sqlite:///{made}", (path.parent / "mlartifacts").as_uri())
        store._dispose_engine()  # noqa: SLF001  # the only way to close the file
        with suppress(FileExistsError):  # someone else was faster
            os.link(made, path)


@contextmanager
def quiet(settings: Mapping[str, str] = MappingProxyType(_SETTINGS)) -> Iterator[None]:
    """Silences MLflow for the length of a call; what the user has set stays."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    levels = {name: logging.getLogger(name).level for name in ("mlflow", "alembic")}
    os.environ.update(added)
    _hush()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for name in added:
            os.environ.pop(name, None)


def _hush() -> None:
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
