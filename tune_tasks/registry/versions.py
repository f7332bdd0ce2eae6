"""Models and versions in MLflow's registry: who the champion is, one version for each promotion, the alias last.

A version carries the key of its promotion in a tag, which is written with it, so that it is found again after a kill.
This module must not decide who is promoted.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from tune_tasks.errors import ConfigError, CorruptLog, Unavailable
from tune_tasks.registry import package
from tune_tasks.registry.artifact import Champion, ModelArtifact
from tune_tasks.registry.client import Connection, absent

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

KEY = "tune_tasks.key"
_LONGEST = 5000


class Registry:
    """The models at one MLflow URI. Opened by its first call, which takes seconds on a new SQLite file.

    Every method raises `ConfigError` for what only an edit mends and `Unavailable` for what a retry may.
    """

    def __init__(self, uri: str) -> None:
        self._connection = Connection(uri)

    @property
    def url(self) -> str:
        """Where the registry is, without a password."""
        return self._connection.shown

    @property
    def uri(self) -> str:
        """Where the registry is, as it was given."""
        return self._connection.uri

    def champion(self, name: str, alias: str) -> Champion | None:
        """The version under the alias; None where there is no such model, or the alias is on none of its versions."""
        with self._connection.calls() as client:
            try:
                found = client.get_model_version_by_alias(name, alias)
            except Exception as error:
                if absent(error):
                    return None
                raise
        return _champion(name, found)

    def register(
        self, model: ModelArtifact, folder: Path, *, loader: str | None = None, near: str | None = None
    ) -> str:
        """Makes a version of the model from the files in `folder`, and returns its number; the alias stays where it is.

        Called again for the same study and step key it returns the same version. The version is downloaded again and
        compared file by file, and its loader is tried, before this returns. `near` is where the loader is found.
        """
        key = f"{model.study_id}/{model.key}"
        with tempfile.TemporaryDirectory(prefix="tune-tasks-") as scratch:
            version = self._version(model.name, key)
            if version is None:
                saved = Path(scratch) / "model"
                package.save(folder, loader, near, saved)
                version = self._create(model, key, saved)
            self.verify(model.name, version, folder, loader)
        return version

    def verify(self, name: str, version: str, folder: Path, loader: str | None) -> None:
        """Downloads a version and compares it with `folder`, file by file; then loads it in a process of its own."""
        with tempfile.TemporaryDirectory(prefix="tune-tasks-") as scratch:
            place = self._download(name, version, scratch)
            wanted, found = _digests(folder), _digests(place / "artifacts" / package.CHECKPOINT)
            wrong = sorted(file for file in {*wanted, *found} if wanted.get(file) != found.get(file))
            if wrong:
                raise Unavailable(
                    f"{self.url}: models:/{name}/{version} does not hold what was uploaded: {', '.join(wrong[:5])} "
                    "differ; the alias was not moved. Delete that version, then promote again"
                )
            if loader:
                package.try_loader(loader, place)

    def bring(self, name: str, version: str, target: Path) -> Path:
        """Brings the files of a version below `target`, and returns their folder; of others' models, all there is.

        Raises `CorruptLog` where there is no such version, or none of its files.
        """
        try:
            place = self._download(name, version, str(target))
        except Unavailable as error:
            if self._has_files(name, version):
                raise
            raise CorruptLog(f"{self.url}: the files of models:/{name}/{version} are gone: {error}") from None
        folder = place / "artifacts" / package.CHECKPOINT
        return folder if folder.is_dir() else place

    def _download(self, name: str, version: str, target: str) -> Path:
        with self._connection.calls() as client:
            import mlflow.artifacts

            source = client.get_model_version_download_uri(name, version)
            return Path(mlflow.artifacts.download_artifacts(source, dst_path=target, tracking_uri=self._connection.uri))

    def _has_files(self, name: str, version: str) -> bool:
        """Whether a version is listed with a file or more; tells files that are gone from a server that is down."""
        with self._connection.calls() as client:
            import mlflow.artifacts

            source = client.get_model_version_download_uri(name, version)
            return bool(mlflow.artifacts.list_artifacts(source, tracking_uri=self._connection.uri))

    def code(self, name: str, version: str, target: Path) -> tuple[str | None, Path | None]:
        """Downloads the code that a version was saved with to `target`; returns its loader's name, and its folder.

        Either is None where there is none: a model of plain files, a loader that is installed.
        """
        with self._connection.calls() as client:
            from mlflow.artifacts import download_artifacts
            from mlflow.models import Model

            source = client.get_model_version_download_uri(name, version).rstrip("/")
            where = {"dst_path": str(target), "tracking_uri": self._connection.uri}
            flavor = Model.load(download_artifacts(f"{source}/MLmodel", **where)).flavors.get("python_function", {})
            loader = (flavor.get("config") or {}).get("loader") or None
            folder = Path(download_artifacts(f"{source}/code", **where)) if loader and flavor.get("code") else None
        return loader, folder

    def move_alias(self, name: str, alias: str, version: str) -> None:
        """Makes a version the one that the alias names."""
        with self._connection.calls() as client:
            client.set_registered_model_alias(name, alias, version)

    def _version(self, name: str, key: str) -> str | None:
        """The version with this key. Of two, which two processes made at once, the first stays."""
        with self._connection.calls() as client:
            found = client.search_model_versions(f"name = {_quoted(name)} and tags.`{KEY}` = {_quoted(key)}")
            numbers = sorted(int(version.version) for version in found)
            for number in numbers[1:]:
                client.delete_model_version(name, str(number))
        return str(numbers[0]) if numbers else None

    def _create(self, model: ModelArtifact, key: str, saved: Path) -> str:
        experiment = self._connection.experiment(model.study.rstrip("/").rpartition("/")[2], model.study)
        with self._connection.calls() as client:
            logged = _upload(client, experiment, model, key, saved)
            _ensure(client, model.name)
            client.create_model_version(
                model.name,
                logged.artifact_location,
                run_id=logged.source_run_id,
                tags=_tags(model, key),
                description=model.reason,
                # On a database MLflow would look this up at its global URI, which is not ours to set.
                model_id=logged.model_id if self._connection.remote else None,
            )
        return self._version(model.name, key) or ""


def _upload(client: MlflowClient, experiment: str, model: ModelArtifact, key: str, saved: Path) -> LoggedModel:
    """Uploads the saved model; it is ready only when all of it is there."""
    for left in client.search_logged_models([experiment], f"tags.`{KEY}` = {_quoted(key)}"):
        client.delete_logged_model(left.model_id)  # of a try that was killed before it made a version
    run = _run_of(client, experiment, model)
    params = {name: str(value)[:_LONGEST] for name, value in model.params.items()}
    logged = client.create_logged_model(experiment, model.name, run, tags={KEY: key}, params=params)
    client.log_model_artifacts(logged.model_id, str(saved))
    client.finalize_logged_model(logged.model_id, "READY")
    return logged


def _run_of(client: MlflowClient, experiment: str, model: ModelArtifact) -> str | None:
    """The run of the trial, where the study is mirrored to the same MLflow."""
    wanted = f"tags.`tune_tasks.study_id` = '{model.study_id}' and tags.`tune_tasks.trial` = '{model.trial}'"
    found = client.search_runs([experiment], wanted, max_results=1)
    return str(found[0].info.run_id) if found else None


def _ensure(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except Exception as error:
        if getattr(error, "error_code", "") not in {"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"}:
            raise


def _tags(model: ModelArtifact, key: str) -> dict[str, str]:
    """What a version says of itself: enough to compare it with the next candidate, and to find its study."""
    told = model.model_dump(
        mode="json",
        include={"trial", "step", "metric", "mode", "study", "study_id", "position", "spec_digest", "path", "digest"},
    )
    tags = {f"tune_tasks.{name}": str(value) for name, value in told.items()}
    tags |= {f"tune_tasks.evaluation.{name}": repr(value) for name, value in model.evaluation.items()}
    tags |= {"tune_tasks.value": repr(model.value), "tune_tasks.versions": orjson.dumps(model.versions).decode()}
    return {name: value[:_LONGEST] for name, value in tags.items()} | {KEY: key}


def _champion(name: str, version: ModelVersion) -> Champion:
    tags = {tag.removeprefix("tune_tasks."): value for tag, value in version.tags.items()}
    value, trial = _finite(tags.get("value")), _finite(tags.get("trial"))
    return Champion(
        version=str(version.version),
        uri=f"models:/{name}/{version.version}",
        value=value,
        metric=tags.get("metric"),
        mode=tags.get("mode"),
        trial=None if trial is None else int(trial),
        study=tags.get("study"),
        path=tags.get("path"),
        digest=tags.get("digest"),
    )


def _finite(text: str | None) -> float | None:
    """A number from a tag, which anybody may have changed; None where it is none."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(_files(folder))}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _quoted(text: str) -> str:
    if "'" in text:
        raise ConfigError(f"promotion.model: {text!r} is not allowed; a name in the registry has no quotation mark")
    return f"'{text}'"
