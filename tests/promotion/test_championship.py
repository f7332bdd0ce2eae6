"""The champions of a study's model, as a person asks for them and goes back to an earlier one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.mlflow_database import new_database
from tune_tasks.cli import main
from tune_tasks.registry import Registry


def objective(config: dict[str, Any]) -> dict[str, float]:
    return {"loss": config["x"]}


def spec(store: Path, name: str, high: float, registry: str, **promotion: Any) -> tt.StudySpec:
    return tt.StudySpec(
        name=name,
        store=str(store),
        objective=objective,
        metric="loss",
        mode="min",
        space={"x": {"type": "float", "low": high / 2, "high": high}},
        sampler="random",
        budget={"trials": 2},
        execution={"runner": "inline"},
        promotion={"model": "tiny", "owner": "tests", "registry": registry, **promotion},
    )


def promoted(store: Path, name: str, high: float, registry: str, **promotion: Any) -> tuple[tt.Study, tt.ModelArtifact]:
    study = tt.tune(spec(store, name, high, registry, **promotion))
    return study, tt.promote_best(study)


@pytest.mark.parametrize("registered", [True, False], ids=["MLflow", "no registry"])
def test_the_history_of_a_model_reaches_over_studies_and_a_rollback_is_a_part_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, registered: bool
) -> None:
    registry = new_database(tmp_path) if registered else "none"
    promoted(tmp_path, "monday", 8.0, registry)
    study, model = promoted(tmp_path, "tuesday", 1.0, registry)
    assert model.promoted
    assert main(["rollback", study.url, "--by", "Ann", "--why", "it is slow"]) == 0
    assert main(["history", study.url]) == 0
    told, reigns = json.loads("[" + capsys.readouterr().out.replace("}\n[", "},\n[") + "]")
    assert [(reign["version"], reign["by"], reign["who"]) for reign in reigns] == [
        ("1", "promotion", f"{tmp_path}/monday"),
        ("2", "promotion", f"{tmp_path}/tuesday"),
        ("1", "rollback", "Ann"),
    ]
    assert (told["version"], told["why"]) == ("1", "it is slow")
    if registered:
        champion = Registry(registry).champion("tiny", "champion")
        assert champion is not None
        assert champion.version == "1"


def test_after_a_rollback_the_next_promotion_is_compared_with_who_is_champion_then(tmp_path: Path) -> None:
    promoted(tmp_path, "monday", 8.0, "none")
    study, _ = promoted(tmp_path, "tuesday", 1.0, "none")
    tt.rollback(study, why="a test")
    _, model = promoted(tmp_path, "wednesday", 2.0, "none")
    assert model.promoted
    assert model.champion is not None
    assert model.champion["version"] == "1"
    assert [reign.version for reign in tt.history(study)] == ["1", "2", "1", "4"]


def test_a_model_of_another_owner_is_not_touched(tmp_path: Path) -> None:
    promoted(tmp_path, "monday", 8.0, "none")
    with pytest.raises(tt.ConfigError, match=r"'tiny' belongs to 'tests', and this study to 'strangers'"):
        promoted(tmp_path, "tuesday", 1.0, "none", owner="strangers")


def test_a_rollback_without_an_earlier_champion_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, _ = promoted(tmp_path, "monday", 8.0, "none")
    assert main(["rollback", study.url, "--why", "a test"]) == tt.ConfigError.exit_code
    assert "no such earlier champion" in capsys.readouterr().err
