"""A copy of the champion, and a pointer that another system watches: whole, whatever is killed, and checked."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import tune_tasks as tt
from tests.deployment.champions import champion, refuse
from tests.deployment.killing import dying
from tests.mlflow_database import new_database
from tests.studies import events
from tune_tasks.events import Deployed
from tune_tasks.store import fetch, memory, open_objects
from tune_tasks.store.checkpoints import CheckpointRef
from tune_tasks.store.local import LocalObjects
from tune_tasks.store.memory import MemoryObjects

CALLS = ("upload", "create", "replace", "delete")


def watched(url: str) -> dict[str, Any] | None:
    """What a system that watches the pointer finds: a whole version, every byte of it checked."""
    objects = open_objects(f"{url}/tiny")
    data = objects.read("current.json")
    if data is None:
        return None
    told: dict[str, Any] = json.loads(data)
    reference = CheckpointRef(key=told["version"], digest=told["digest"], size=0)
    with tempfile.TemporaryDirectory() as scratch:
        fetched = fetch(objects, reference, Path(scratch) / "model")
        told["weight"] = json.loads((fetched / "model.json").read_text())["weight"]
    return told


def section(url: str, **more: Any) -> dict[str, Any]:
    return {"target": {"name": "folder", "url": url}, **more}


def test_the_pointer_names_a_whole_copy_and_the_version_before_it(tmp_path: Path) -> None:
    url = str(tmp_path / "models")
    study = champion(tmp_path, "monday", 1.0, 2.0, deploy=section(url))
    deployment = tt.deploy(study)
    assert (deployment.deployed, deployment.version, deployment.url) == (True, "1", f"{url}/tiny")
    later = champion(tmp_path, "tuesday", 0.5, 5.0, deploy=section(url))
    assert tt.deploy(later).previous == "1"
    told = watched(url)
    assert told is not None
    assert (told["version"], told["previous"], told["weight"], told["loader"]) == ("2", "1", 5.0, "serving:load")
    files = sorted(path.relative_to(url).as_posix() for path in Path(url).rglob("*") if path.is_file())
    whole = ("data/model.json", "manifest.json", "model.json")
    assert files == [*(f"tiny/{n}/{file}" for n in (1, 2) for file in whole), "tiny/current.json"]
    assert tt.deploy(study).reason == "version 2 is there already"  # the alias counts, not the study
    assert tt.undeploy(study).previous == "2"
    assert watched(url) is None
    assert not tt.undeploy(study).changed


@pytest.mark.s3
def test_a_bucket_is_as_good_as_a_folder(tmp_path: Path, s3: str) -> None:
    study = champion(tmp_path, "monday", 1.0, 2.0, deploy=section(s3))
    assert tt.deploy(study).url == f"{s3}/tiny"
    told = watched(s3)
    assert told is not None
    assert (told["version"], told["weight"], told["path"]) == ("1", 2.0, f"{s3}/tiny/1")
    assert not tt.deploy(study).changed


def test_after_a_rollback_the_next_deployment_points_back_and_copies_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "models")
    tt.deploy(champion(tmp_path, "monday", 1.0, 2.0, deploy=section(url)))
    study = champion(tmp_path, "tuesday", 0.5, 5.0, deploy=section(url))
    tt.deploy(study)
    tt.rollback(study, why="a test")
    monkeypatch.delattr(LocalObjects, "upload")
    assert tt.deploy(study).changed
    told = watched(url)
    assert told is not None
    assert (told["version"], told["weight"]) == ("1", 2.0)


def test_a_version_that_fails_its_check_is_not_pointed_to_and_the_alias_goes_back(tmp_path: Path) -> None:
    url, canary = str(tmp_path / "models"), {"check": "serving:check"}
    champion(tmp_path, "monday", 1.0, 2.0)
    refuse(tmp_path, weight=5.0, after=0)
    tt.deploy(champion(tmp_path, "tuesday", 0.5, 3.0, deploy=section(url, canary=canary)))
    study = champion(tmp_path, "wednesday", 0.25, 5.0, deploy=section(url, canary=canary))
    deployment = tt.deploy(study)
    assert (deployment.deployed, deployment.version) == (False, "2")
    assert "its answer is 5.0, which is wrong; the champion is version 2 again" in deployment.reason
    told = watched(url)
    assert told is not None
    assert told["version"] == "2"
    assert [(reign.version, reign.by) for reign in tt.history(study)][-1] == ("2", "rollback")


def test_the_first_version_that_fails_its_check_leaves_the_alias_where_it_is(tmp_path: Path) -> None:
    study = champion(tmp_path, "monday", 1.0, 2.0, fault="does not load", deploy=section(str(tmp_path / "models")))
    deployment = tt.deploy(study)
    assert (deployment.deployed, deployment.version) == (False, None)
    assert deployment.reason.endswith("another format; the champion stays: there is no earlier one")
    assert watched(str(tmp_path / "models")) is None


def test_a_model_whose_files_are_not_what_was_promoted_is_not_deployed(tmp_path: Path) -> None:
    url = str(tmp_path / "models")
    study = champion(tmp_path, "monday", 1.0, 2.0, deploy=section(url))
    (published,) = Path(study.url).glob("models/*/data/model.json")
    published.write_text('{"weight": 666}')
    with pytest.raises(tt.CorruptLog, match="digest"):
        tt.deploy(study)
    assert watched(url) is None


def test_the_code_that_the_registry_has_with_a_version_is_what_loads_it(tmp_path: Path) -> None:
    registry = {"registry": new_database(tmp_path)}
    study = champion(
        tmp_path, "monday", 1.0, 2.0, deploy=section(str(tmp_path / "models")), promotion={**registry, "example": None}
    )
    (tmp_path / "code" / "serving.py").write_text("def load(folder):\n    raise RuntimeError('not as it was')\n")
    study = tt.open_study(study.url)
    from tune_tasks.deployment.loading import load
    from tune_tasks.deployment.source import model_of
    from tune_tasks.promotion.championship import champions

    held = champions(study)
    present, _ = held.current(time=0.0)
    assert present is not None
    model = model_of(study, held, present, "tiny")
    (tmp_path / "scratch").mkdir()
    assert load(model, tmp_path / "scratch").predict([1]) == [2.0]
    assert tt.deploy(study).deployed


@pytest.mark.parametrize("failing", [False, True], ids=["it passes", "it fails its check"])
@pytest.mark.parametrize(("scheme", "when"), [("local", "before"), ("memory", "before"), ("memory", "after")])
def test_a_deployment_that_is_killed_at_any_write_ends_as_one_that_is_not(
    tmp_path: Path, scheme: str, when: str, failing: bool
) -> None:
    place = str(tmp_path) if scheme == "local" else f"memory://{uuid4().hex}"
    url = f"{place}/models"
    deploy = section(url, canary={"check": "serving:check"})
    refuse_when = {"weight": 5.0, "after": 0} if failing else {"weight": 7.0, "after": 0}
    tt.deploy(champion(tmp_path, "monday", 1.0, 2.0, store=f"{place}/studies", deploy=section(url)))
    study = champion(tmp_path, "tuesday", 0.5, 5.0, store=f"{place}/studies", deploy=deploy)
    refuse(tmp_path, **refuse_when)
    writes: list[tuple[Any, str]] = [(owner, name) for owner in (LocalObjects, MemoryObjects) for name in CALLS]
    again = beginning(tmp_path)
    states, expected = set(), "1" if failing else "2"
    for kills in range(40):
        with dying(writes, kills, when) as process:
            deployment = tt.deploy(tt.open_study(study.url))
        found = watched(url)
        assert found is not None  # the old one or the new one, and each of them whole
        assert found["weight"] == {"1": 2.0, "2": 5.0}[found["version"]]
        states.add(found["version"])
        if process.dead:
            deployment = tt.deploy(tt.open_study(study.url))
        told = watched(url)
        assert told is not None
        assert (told["version"], deployment.version, tt.history(study)[-1].version) == (expected,) * 3
        results = [event.result["deployed"] for event in events(study.url) if isinstance(event, Deployed)]
        assert results == [not failing]
        if not process.dead:
            break
        again()
    assert not process.dead
    assert kills >= 5
    assert states == ({"1"} if failing else {"1", "2"})


def beginning(folder: Path) -> Callable[[], None]:
    """Brings what is in a folder, and in memory, back to how it is now."""
    kept = folder.with_name(f"{folder.name}-kept")
    shutil.copytree(folder, kept)
    remembered = dict(memory._ALL)

    def again() -> None:
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        memory._ALL.clear()
        memory._ALL.update(remembered)

    return again
