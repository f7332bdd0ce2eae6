"""The deploy step: targets of other packages, what is refused, and what the log tells."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.deployment.champions import champion
from tests.studies import COMMAND, events
from tune_tasks import plugins
from tune_tasks.delivery import Deploy
from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.events import Deployed, Deploying

TARGET = '''
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tune_tasks.deployment import Outcome, Standing
from tune_tasks.errors import ConfigError, Unavailable


class File(BaseModel):
    """Writes the version's number into a file; a second file says how it refuses."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: Path

    def deploy(self, model, checks):
        mood = self.path.with_suffix(".mood")
        match mood.read_text() if mood.exists() else "":
            case "no":
                raise ConfigError("deploy.target: no permission to write")
            case "later":
                raise Unavailable("deploy.target: nobody answers")
        self.path.write_text(f"{model.version} {model.digest}")
        return Outcome(took=True, reason="it is written", url=str(self.path))

    def undeploy(self, name):
        self.path.unlink(missing_ok=True)

    def standing(self, name):
        if not self.path.exists():
            return None
        version, digest = self.path.read_text().split()
        return Standing(version=version, digest=digest, settled=True, url=str(self.path))
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as an installer would have left it, with a target."""
    (tmp_path / "other_target.py").write_text(TARGET)
    info = tmp_path / "other_target-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-target\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[tune_tasks.targets]\nfile = other_target:File\nserve = other_target:File\nbroken = no_such_module:Target\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])  # last, so that its names would win
    return tmp_path


def section(folder: Path) -> dict[str, Any]:
    return {"target": {"name": "file", "path": str(folder / "deployed")}}


def told(study: tt.Study) -> list[tuple[str, str | None]]:
    found = [event for event in events(study.url) if isinstance(event, Deploying | Deployed)]
    return [(e.key, e.version if isinstance(e, Deploying) else e.result["version"]) for e in found]


def test_a_target_of_another_package_gets_the_champion_and_loses_it(installed: Path) -> None:
    study = champion(installed, "monday", 1.0, 2.0, deploy=section(installed))
    deployment = tt.deploy(study, run="monday")
    assert (deployment.target, deployment.version, deployment.reason) == ("file", "1", "version 1: it is written")
    assert (installed / "deployed").read_text().startswith("1 ")
    assert tt.undeploy(study, run="monday").previous == "1"
    assert not (installed / "deployed").exists()
    assert told(study) == [
        ("monday/deploy/0", "1"),
        ("monday/deploy/0", "1"),
        ("monday/deploy/1", None),
        ("monday/deploy/1", None),
    ]


def test_its_options_and_its_name_are_checked_before_a_study_begins(installed: Path) -> None:
    for target, said in (
        ({"name": "file", "pathh": "x"}, r"deploy\.target\.pathh.*Did you mean 'path'"),
        ({"name": "broken"}, r"deploy\.target\.name: 'broken' cannot be loaded.*no_such_module"),
        ({"name": "fille"}, r"broken, file, folder, serve.*Did you mean 'file'"),
        ({"name": "serve", "port": 0}, r"deploy\.target\.port: 0 is not allowed"),
    ):
        with pytest.raises(ConfigError, match=said):
            champion(installed, "monday", 1.0, 2.0, deploy={"target": target})
    assert not (installed / "studies" / "monday").exists()
    assert type(plugins.target(Deploy())).__module__ == "tune_tasks.deployment.serve"


@pytest.mark.parametrize(("mood", "error"), [("no", ConfigError), ("later", Unavailable)])
def test_a_target_that_refuses_leaves_the_version_before_and_the_next_try_goes_on(
    installed: Path, mood: str, error: type[Exception]
) -> None:
    tt.deploy(champion(installed, "monday", 1.0, 2.0, deploy=section(installed)))
    study = champion(installed, "tuesday", 0.5, 3.0, deploy=section(installed))
    (installed / "deployed.mood").write_text(mood)
    with pytest.raises(error, match=r"deploy\.target"):
        tt.deploy(study)
    assert (installed / "deployed").read_text().startswith("1 ")
    assert told(study) == [("main/deploy/0", "2")]
    (installed / "deployed.mood").unlink()
    assert tt.deploy(study).previous == "1"
    assert told(study) == [("main/deploy/0", "2"), ("main/deploy/0", "2")]


def test_a_step_that_was_cut_off_before_another_model_became_champion_is_closed_and_that_one_goes(
    installed: Path,
) -> None:
    first = champion(installed, "monday", 1.0, 2.0, deploy=section(installed))
    (installed / "deployed.mood").write_text("later")
    with pytest.raises(Unavailable):
        tt.deploy(first)
    (installed / "deployed.mood").unlink()
    champion(installed, "tuesday", 0.5, 3.0)
    assert tt.deploy(first).version == "2"
    assert told(first) == [
        ("main/deploy/0", "1"),
        ("main/deploy/0", None),
        ("main/deploy/1", "2"),
        ("main/deploy/1", "2"),
    ]
    assert "version 1 is not the champion: 2 became it by promotion" in first.state.steps["main/deploy/0"]["reason"]


def test_without_a_champion_there_is_nothing_to_deploy(installed: Path) -> None:
    study = champion(installed, "monday", 1.0, 2.0, deploy=section(installed))
    for path in (installed / "studies" / "_models").rglob("*.*"):
        path.unlink()
    with pytest.raises(ConfigError, match="tiny has no champion yet; promote a model first"):
        tt.deploy(study)


def test_an_endpoint_without_a_loader_or_in_one_process_is_refused(tmp_path: Path) -> None:
    from tune_tasks.deployment import Checks, Model

    serve = plugins.target(Deploy())
    with pytest.raises(ConfigError, match=r"promotion\.loader: missing"):
        serve.deploy(Model("tiny", "1", str(tmp_path), "digest"), Checks())
    for path, said in (("memory://a/b", "lives in one process"), ("s3://key:secret@bucket/b", "do not reach")):
        with pytest.raises(ConfigError, match=said) as refused:
            serve.deploy(Model("tiny", "1", path, "digest", "serving:load"), Checks())
        assert "secret" not in str(refused.value)


def test_where_no_cluster_answers_the_command_says_how_to_start_one(tmp_path: Path) -> None:
    study = champion(tmp_path, "monday", 1.0, 2.0, deploy={"target": "serve"})
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        environment = {**os.environ, "RAY_ADDRESS": address}
        done = subprocess.run(
            [*COMMAND, "deploy", study.url], env=environment, capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (Unavailable.exit_code, "")
    assert done.stderr.startswith("Unavailable: deploy.target.address: no Ray answers at 'auto'; an endpoint needs one")
    assert address in done.stderr
    assert "`ray start --head`" in done.stderr
