"""A sampler of another package is found by its entry point, and refused clearly where it is not there or broken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import tune_tasks as tt
from tests.studies import SPEC
from tune_tasks import plugins
from tune_tasks.errors import ConfigError
from tune_tasks.spec import StudySpec

SAMPLER = '''
from pydantic import BaseModel, ConfigDict
from tune_tasks.events import Proposal


class Middle(BaseModel):
    """Always the same point."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    at: float = 0.5

    def propose(self, history, count):
        numbers = range(len(history.trials), len(history.trials) + count)
        return [Proposal(number=n, params={"x": self.at}, reason="the middle") for n in numbers]
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package on the path as an installer would have left it, with entry points, one of which leads nowhere."""
    (tmp_path / "other_package.py").write_text(SAMPLER)
    info = tmp_path / "other_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[tune_tasks.samplers]\n"
        "middle = other_package:Middle\n"
        "random = other_package:Middle\n"
        "broken = no_such_module:Sampler\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])  # last, so that its names would win
    return tmp_path


def spec(store: Path, **sampler: object) -> StudySpec:
    return StudySpec(
        **{
            **SPEC,
            "store": str(store),
            "objective": square,
            "sampler": sampler,
            "scheduler": "none",
            "budget": {"trials": 2},
        }
    )


def square(config: dict[str, float]) -> dict[str, float]:
    return {"loss": config["x"] ** 2}


def test_a_sampler_of_another_package_proposes(installed: Path) -> None:
    study = tt.tune(spec(installed / "studies", name="middle", at=0.25))
    assert [(trial.params, trial.value, trial.reason) for trial in study.trials] == [
        ({"x": 0.25}, 0.0625, "the middle")
    ] * 2


def test_its_options_are_checked_like_those_of_the_built_in_ones(installed: Path) -> None:
    with pytest.raises(ConfigError, match=r"sampler\.att.*Did you mean 'at'"):
        plugins.sampler(spec(installed, name="middle", att=1))


def test_a_plug_in_that_cannot_be_loaded_is_named(installed: Path) -> None:
    with pytest.raises(ConfigError, match=r"sampler\.name: 'broken' cannot be loaded.*no_such_module"):
        plugins.sampler(spec(installed, name="broken"))


def test_an_unknown_name_is_told_with_those_that_are_installed(installed: Path) -> None:
    with pytest.raises(ConfigError, match=r"grid, middle, random, sobol, tpe.*Did you mean 'middle'"):
        plugins.sampler(spec(installed, name="midle"))


def test_another_package_cannot_take_the_name_of_a_built_in_sampler(installed: Path) -> None:
    assert type(plugins.sampler(spec(installed, name="random"))).__module__ == "tune_tasks.samplers.random"
    assert plugins.available(plugins.SAMPLERS)["random"].module == "tune_tasks.samplers.random"
