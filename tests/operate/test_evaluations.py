"""What a promotion measured example by example is verified, copied and kept as long as the log names it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from uuid import uuid4

import pytest

import tune_tasks as tt
from tests.studies import SPEC, write_study
from tune_tasks.errors import CorruptLog
from tune_tasks.operate import check_study, copy_study, sweep_study
from tune_tasks.store import Objects, open_objects

MEASURE = """

def measure(folder):
    return tt.Evaluation(examples={"loss": [load(folder).weight, 1.0]}, slices={"kind": ["a", "b"]})
"""


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("promoted")
    promotion = {**SPEC["promotion"], "evaluate": "objective:measure", "candidates": 2}
    spec = write_study(folder, promotion=promotion, budget={"trials": 3})
    with (folder / "objective.py").open("a") as file:
        file.write(MEASURE)
    assert tt.promote_best(tt.tune(spec)).promoted
    return folder / "studies" / "small"


@pytest.fixture
def place(promoted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(promoted, tmp_path / "studies" / "small"))


@pytest.fixture
def objects(place: Path) -> Objects:
    return open_objects(str(place))


def keys(objects: Objects) -> list[str]:
    return objects.list("evaluations/")


def test_measurements_are_nothing_unknown_and_nothing_removes_them(place: Path, objects: Objects) -> None:
    assert len(keys(objects)) == 2
    assert check_study(place).findings == ()
    swept = sweep_study(place, grace=0)
    assert swept.unknown == ()
    assert not [removal for removal in swept.removals if removal.kind == "evaluation"]
    assert len(keys(objects)) == 2


def test_one_that_was_changed_or_lost_is_an_error(place: Path, objects: Objects) -> None:
    first, second = keys(objects)
    objects.replace(first, b"{}")
    objects.delete(second)
    found = {finding.key: finding.problem for finding in check_study(place).findings}
    assert "has SHA-256" in found[first]
    assert "is missing" in found[second]
    assert {finding.key for finding in check_study(place, data=False).findings} == {second}
    with pytest.raises(CorruptLog, match="evaluations/"):
        copy_study(place, open_objects(f"memory://{uuid4().hex}"))


def test_one_that_was_never_recorded_goes_after_the_grace_period(place: Path, objects: Objects) -> None:
    key = "evaluations/01234567/trial-0-1-0-89abcdef.json"
    assert objects.create(key, b"{}")
    assert [(f.key, f.severity) for f in check_study(place).findings] == [(key, "note")]
    assert sweep_study(place).younger == 1
    os.utime(place / key, (1.0, 1.0))
    assert [(removal.kind, removal.key) for removal in sweep_study(place).removals] == [("evaluation", key)]
    assert key not in keys(objects)
    assert len(keys(objects)) == 2


def test_a_copy_has_them_and_opens_to_the_same_promotion(place: Path, objects: Objects) -> None:
    target = open_objects(f"memory://{uuid4().hex}")
    assert copy_study(place, target).size > 0
    assert {key: target.read(key) for key in keys(target)} == {key: objects.read(key) for key in keys(objects)}
    assert copy_study(place, target).files == 0
    assert check_study(target).sound
