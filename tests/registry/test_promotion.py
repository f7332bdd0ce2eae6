"""A promotion is carried out once, whatever is killed, and its model loads elsewhere."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tests.registry.conftest import Promotion
from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.registry import ModelArtifact, Registry
from tune_tasks.store.local import LocalObjects

ELSEWHERE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tune_tasks":
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Absent())
import mlflow

mlflow.set_tracking_uri(sys.argv[1])
print(mlflow.pyfunc.load_model("models:/tiny@champion").predict([1, 2]))
"""


@pytest.fixture
def study(tmp_path: Path, code: Path) -> Promotion:
    return Promotion(tmp_path / "studies" / "first", code, 0.5)


def versions(uri: str) -> list[int]:
    return sorted(int(version.version) for version in MlflowClient(uri).search_model_versions("name = 'tiny'"))


def test_the_champion_loads_and_predicts_where_tune_tasks_is_not_installed(
    study: Promotion, registry: Registry, uri: str, tmp_path: Path
) -> None:
    model = study.carry_out(registry)
    assert (model.promoted, model.version, model.uri) == (True, "1", "models:/tiny/1")
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, uri],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[0.5, 1.0]", done.stderr
    assert "Warning" not in done.stderr


def test_the_artifact_tells_what_was_promoted_and_where_it_comes_from(
    study: Promotion, registry: Registry, code: Path
) -> None:
    (code / "arithmetic.py").write_text("import numpy\n\ndef scaled(weight, row):\n    return weight * row\n")
    model = study.carry_out(registry)
    assert (model.trial, model.step, model.value, model.metrics) == (1, 1, 0.5, {"loss": 0.5})
    assert (model.params, model.evaluation) == ({"x": 0.5, "seed": 7}, {"test_loss": 0.25})
    assert (model.bounds, model.gates[0].reason) == ({"test_loss": (0.125, 0.5)}, "it is the first")
    assert (model.code, model.data, model.parent) == ("4f2a", "data of May", "memory://parent")
    assert model.environment["packages"] == {"numpy": version("numpy")}
    assert (model.study, model.study_id, model.position) == (study.objects.url, "id-of-first", 12)
    assert (model.created, model.key, model.reason) == (2000.0, "main/promote", "decided by a test")
    assert model.versions["python"].startswith("3.")
    assert ModelArtifact.model_validate_json(model.to_json()) == model


def test_the_folder_has_the_files_the_manifest_and_model_json(study: Promotion, registry: Registry) -> None:
    model = study.carry_out(registry)
    assert model.path is not None
    folder = Path(model.path)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == ["data/notes.txt", "data/weights/weight.json", "manifest.json", "model.json"]
    assert json.loads((folder / "model.json").read_text()) == model.model_dump(mode="json")
    assert dict(study.history.state.trials[1].checkpoints)[1].digest == model.digest


def test_the_registry_knows_the_champion_by_its_value(study: Promotion, registry: Registry) -> None:
    assert registry.champion("tiny", "champion") is None
    model = study.carry_out(registry)
    champion = registry.champion("tiny", "champion")
    assert champion is not None
    assert (champion.version, champion.value, champion.metric, champion.mode) == ("1", 0.5, "loss", "min")
    assert (champion.trial, champion.study, champion.path) == (1, model.study, model.path)
    assert registry.champion("tiny", "challenger") is None


def test_twice_gives_one_version_one_upload_and_the_same_artifact(
    study: Promotion, registry: Registry, uri: str, tmp_path: Path
) -> None:
    decision = study.decision(registry)
    first = study.carry_out(registry, decision)
    assert study.carry_out(registry, decision) == first
    assert study.carry_out(Registry(uri), decision) == first
    assert versions(uri) == [1]
    assert len(list(tmp_path.glob("mlartifacts/models/*"))) == 1


def test_another_promotion_of_the_same_study_is_another_version(study: Promotion, registry: Registry, uri: str) -> None:
    study.carry_out(registry)
    second = study.carry_out(registry, study.decision(registry, key="next week/promote"))
    assert (second.version, versions(uri)) == ("2", [1, 2])
    assert second.champion is not None
    assert second.champion["version"] == "1"


WRITES: list[tuple[type, str]] = [
    (LocalObjects, "upload"),
    (LocalObjects, "create"),
    (MlflowClient, "create_logged_model"),
    (MlflowClient, "log_model_artifacts"),
    (MlflowClient, "finalize_logged_model"),
    (MlflowClient, "create_registered_model"),
    (MlflowClient, "create_model_version"),
    (MlflowClient, "set_registered_model_alias"),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("write", WRITES, ids=[name for _, name in WRITES])
def test_a_kill_at_any_write_leaves_the_old_champion_and_a_retry_ends_with_one_version(
    tmp_path: Path,
    code: Path,
    uri: str,
    monkeypatch: pytest.MonkeyPatch,
    write: tuple[type, str],
    when: str,
) -> None:
    registry, (owner, name) = Registry(uri), write
    plain = {"loader": None, "evaluate": None}
    Promotion(tmp_path / "studies" / "first", code, 0.5, **plain).carry_out(registry)
    better = Promotion(tmp_path / "studies" / "second", code, 0.25, **plain)
    decision = better.decision(registry)
    monkeypatch.setattr(owner, name, killed(getattr(owner, name), when))
    with pytest.raises(KeyboardInterrupt):
        better.carry_out(registry, decision)
    monkeypatch.undo()
    champion = Registry(uri).champion("tiny", "champion")
    moved = (name, when) == ("set_registered_model_alias", "after")
    assert champion is not None
    assert champion.version == ("2" if moved else "1")
    if name == "set_registered_model_alias":  # whoever finds a champion finds its manifest
        assert list(tmp_path.glob("studies/second/models/*/model.json"))
    model = better.carry_out(Registry(uri), decision)
    assert (model.promoted, model.version, versions(uri)) == (True, "2", [1, 2])
    champion = Registry(uri).champion("tiny", "champion")
    assert champion is not None
    assert champion.version == "2"


def killed(real: Callable[..., Any], when: str) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        if when == "after":
            with contextlib.suppress(MlflowException):  # the model's name is there already
                real(*args, **options)
        raise KeyboardInterrupt

    return call


def test_what_arrives_damaged_in_the_registry_never_becomes_champion(
    study: Promotion, registry: Registry, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = MlflowClient.log_model_artifacts

    def damaged(self: MlflowClient, model: str, folder: str) -> None:
        (Path(folder) / "artifacts" / "checkpoint" / "notes.txt").write_text("something else")
        real(self, model, folder)

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", damaged)
    with pytest.raises(Unavailable, match=r"notes\.txt"):
        study.carry_out(registry)
    assert registry.champion("tiny", "champion") is None


def test_a_loader_that_works_only_here_never_becomes_champion(
    tmp_path: Path, code: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code / "elsewhere.py").write_text("predict = print\n")
    monkeypatch.setitem(sys.modules, "elsewhere", object())
    study = Promotion(tmp_path / "studies" / "first", code, 0.5, loader="serving:empty")
    with pytest.raises(ConfigError, match="has no predict"):
        study.carry_out(registry)
    assert registry.champion("tiny", "champion") is None


def test_without_a_loader_the_files_are_there_and_predicting_says_what_is_missing(
    tmp_path: Path, code: Path, registry: Registry, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    study = Promotion(tmp_path / "studies" / "first", code, 0.5, loader=None)
    study.carry_out(registry)
    place = MlflowClient(uri).get_model_version_download_uri("tiny", "1")
    model = mlflow.pyfunc.load_model(place)
    with pytest.raises(RuntimeError, match=r"promotion\.loader"):
        model.predict([1])
    assert list(Path(unquote(urlsplit(place).path)).rglob("weight.json"))


def test_an_alias_that_someone_else_moved_meanwhile_stays_where_it_is(
    tmp_path: Path, code: Path, study: Promotion, registry: Registry
) -> None:
    other = Promotion(tmp_path / "studies" / "second", code, 0.25)
    decision = study.decision(registry)
    other.carry_out(registry)
    model = study.carry_out(registry, decision)
    assert (model.promoted, model.uri) == (False, None)
    assert "version 1 became the champion by promotion (decided by a test), while" in model.reason
    assert not list(Path(study.objects.url).rglob("model.json"))
    champion = registry.champion("tiny", "champion")
    assert champion is not None
    assert champion.version == "1"


def test_where_the_champion_stays_nothing_is_made(study: Promotion, registry: Registry, uri: str) -> None:
    decision = study.decision(registry).model_copy(update={"trial": None, "step": None})
    model = study.carry_out(registry, decision)
    assert (model.promoted, model.reason, model.path) == (False, "decided by a test", None)
    assert study.objects.list("models/") == []
    assert registry.champion("tiny", "champion") is None


def test_without_a_registry_the_folder_is_the_model(study: Promotion) -> None:
    model = study.carry_out(None)
    assert (model.promoted, model.version, model.uri) == (True, None, model.path)
    assert model.path is not None
    assert (Path(model.path) / "model.json").exists()
    assert study.carry_out(None) == model


def test_a_study_without_checkpoints_promotes_its_parameters(tmp_path: Path, code: Path, registry: Registry) -> None:
    study = Promotion(tmp_path / "studies" / "first", code, 0.5)
    state = study.history.state
    state.trials = [type(trial)(**{**fields(trial), "checkpoints": ()}) for trial in state.trials]
    model = study.carry_out(registry)
    assert model.path is not None
    assert json.loads((Path(model.path) / "data" / "params.json").read_text()) == {"x": 0.5, "seed": 7}
    assert model.version == "1"


def fields(trial: Any) -> dict[str, Any]:
    return {name: getattr(trial, name) for name in trial.__slots__}


def test_a_version_that_someone_else_made_champion_has_no_value(registry: Registry, uri: str) -> None:
    client = MlflowClient(uri)
    client.create_registered_model("tiny")
    version = client.create_model_version("tiny", "file:///somewhere", tags={"tune_tasks.value": "a lot"})
    client.set_registered_model_alias("tiny", "champion", version.version)
    champion = registry.champion("tiny", "champion")
    assert champion is not None
    assert (champion.version, champion.value, champion.metric) == ("1", None, None)


def test_a_pickled_model_is_never_published_unless_the_spec_allows_it(
    tmp_path: Path, code: Path, registry: Registry
) -> None:
    study = Promotion(tmp_path / "studies" / "first", code, 0.5, loader=None)
    study.pickle(tmp_path / "saved")
    with pytest.raises(ConfigError, match=r"weights\.bin of the model is pickled: whoever loads it runs"):
        study.carry_out(registry)
    assert study.objects.list("models/") == []
    allowed = Promotion(tmp_path / "studies" / "second", code, 0.5, loader=None, pickle=True)
    allowed.pickle(tmp_path / "saved")
    assert allowed.carry_out(registry).promoted


def test_nothing_goes_to_standard_output_or_into_the_working_folder(
    study: Promotion,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "working").mkdir()
    monkeypatch.chdir(tmp_path / "working")
    study.carry_out(registry)
    assert capfd.readouterr().out == ""
    assert list(Path().iterdir()) == []
