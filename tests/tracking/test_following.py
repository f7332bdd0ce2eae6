"""Trackers are run so that none of them can hurt a study, or another one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

import tune_tasks as tt
from tests.mlflow_database import new_database
from tests.studies import COMMAND
from tests.tracking.story import URL, ids, story, told
from tests.tracking.test_files import rows
from tune_tasks import plugins
from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.studies import Study
from tune_tasks.tracking import following
from tune_tasks.tracking.following import Followed, Trackers

NOTES = '''
from pydantic import BaseModel, ConfigDict


class Notes(BaseModel):
    """Writes the number of reports into a file; fails while there is a file `down` beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str

    def place(self, state, url):
        return self.path

    def update(self, state, url):
        import pathlib

        yield
        if pathlib.Path(self.path + ".down").exists():
            raise RuntimeError("the notes\\nare lost")
        pathlib.Path(self.path).write_text(str(sum(trial.budget for trial in state.trials)))
'''


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tracker of another package, as an installer would have left it; returns the file that it writes."""
    package = tmp_path / "package"
    info = package / "other_tracker-1.0.dist-info"
    info.mkdir(parents=True)
    (package / "other_tracker.py").write_text(NOTES)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-tracker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tune_tasks.trackers]\nnotes = other_tracker:Notes\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(package)])
    return tmp_path / "notes"


def train(config: dict[str, float]) -> None:
    for step in range(3):
        tt.report({"loss": config["x"] / (step + 1)})


def test_a_tracker_of_another_package_shows_the_study(opened: Callable[..., Study], notes: Path) -> None:
    tt.tune(opened(train, tracking=[{"name": "notes", "path": str(notes)}]))
    assert notes.read_text() == "12"


def test_an_unknown_tracker_or_option_is_refused_before_the_study_begins(opened: Callable[..., Study]) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.0\.name: 'tensorbord'.*Did you mean 'tensorboard'"):
        opened(train, tracking=["tensorbord"])
    with pytest.raises(ConfigError, match=r"tracking\.1\.formt: .*Did you mean 'format'"):
        opened(train, tracking=["mlflow", {"name": "files", "formt": "csv"}])


def test_a_tracker_that_fails_is_one_line_and_the_others_and_the_study_go_on(
    opened: Callable[..., Study], notes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    down = notes.with_name("notes.down")
    down.touch()
    study = opened(train, tracking=[{"name": "notes", "path": str(notes)}, "files"])
    tt.tune(study)
    assert study.state.done
    assert len(rows(tmp_path / "studies/_tables/small/trials.csv")) == 4
    assert capfd.readouterr().err == "tracking: notes: RuntimeError: the notes are lost\n"
    down.unlink()
    assert tt.track(study.url) == {"notes": str(notes), "files": str(tmp_path / "studies/_tables/small")}
    assert notes.read_text() == "12"


def test_what_fails_is_asked_again_less_and_less_often_and_is_said_once(
    notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, said = [0.0], list[str]()
    monkeypatch.setattr(following.time, "monotonic", lambda: clock[0])
    history = story()
    spec = history.state.spec.model_copy(update={"tracking": (plugins.Plugin(name="notes", path=str(notes)),)})
    trackers = Trackers(spec, said.append)
    down = notes.with_name("notes.down")
    down.touch()
    asked = []
    for second in range(200):
        clock[0] = float(second)
        due = trackers._all[0].due
        assert not trackers.update(history.state, URL)
        if trackers._all[0].due != due:
            asked.append(second)
    assert asked == [0, 5, 15, 35, 75, 135, 195]
    assert said == ["tracking: notes: RuntimeError: the notes are lost"]
    down.unlink()
    clock[0] = 300.0
    assert trackers.update(history.state, URL)
    assert not trackers.failing


def test_a_slow_tracker_leaves_the_next_one_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(following.time, "monotonic", lambda: clock[0])

    class Slow:
        pieces = 0

        def place(self, *_: object) -> str:
            return "somewhere"

        def update(self, *_: object) -> Any:
            while True:
                Slow.pieces += 1
                clock[0] += 3  # longer than its turn
                yield

    history = story()
    spec = history.state.spec.model_copy(update={"tracking": (plugins.Plugin(name="files", to=str(tmp_path)),) * 2})
    trackers = Trackers(spec, pytest.fail)
    trackers._all[0].tracker = Slow()
    assert not trackers.update(history.state, URL)
    assert Slow.pieces == 1
    assert rows(tmp_path / "tracked/trials.csv")


@pytest.mark.parametrize(
    ("load", "worked", "rest"), [(0.5, 0.1, 0.1), (0.5, 4.0, 4.0), (64.0, 1.0, 19.0), (64.0, 9.0, 30.0)]
)
def test_the_process_leaves_a_machine_alone_for_longer_that_has_enough_to_do(
    load: float, worked: float, rest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following.os, "getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(following.os, "cpu_count", lambda: 4)
    assert following._rest(worked) == pytest.approx(rest)


def test_the_command_says_where_and_the_same_comes_back_after_a_deletion(
    opened: Callable[..., Study], tmp_path: Path
) -> None:
    uri = new_database(tmp_path)
    study = tt.tune(opened(train, tracking=[{"name": "mlflow", "uri": uri}, {"name": "tensorboard"}]))
    before = told(uri, "small")
    assert set(before) == {"small", "trial 0", "trial 1", "trial 2", "trial 3"}
    for run in ids(MlflowClient(uri), "small").values():
        MlflowClient(uri).delete_run(run)
    done = subprocess.run([*COMMAND, "track", study.url], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        "study": study.url,
        "shown": {"mlflow": uri, "tensorboard": str(tmp_path / "studies/_tensorboard/small")},
    }
    assert told(uri, "small") == before


def test_the_command_fails_where_a_tracker_does_after_the_others_had_their_turn(
    opened: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tt.tune(opened(train, tracking=[{"name": "mlflow", "uri": "http://127.0.0.1:9"}, "files"]))
    (tmp_path / "studies/_tables/small/trials.csv").unlink()
    with pytest.raises(Unavailable, match=r"tracking: mlflow: http://127\.0\.0\.1:9: MLflow did not do as asked"):
        tt.track(study.url)
    assert (tmp_path / "studies/_tables/small/trials.csv").exists()


class Falters:
    """A store that answers only a few times, and then for a while not at all."""

    def __init__(self, objects: Any, answers: int) -> None:
        self.objects, self.answers = objects, answers

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objects, name)

    def read(self, key: str) -> bytes | None:
        self.answers -= 1
        if self.answers < 0:
            raise Unavailable("gone in the middle")
        found: bytes | None = self.objects.read(key)
        return found


def test_a_store_that_fails_in_the_middle_is_read_from_the_start_later(
    opened: Callable[..., Study], tmp_path: Path
) -> None:
    study = opened(train, tracking=["files"])
    followed = Followed(study.url, pytest.fail)
    tt.tune(study)
    sound = followed.log.objects
    followed.log.objects = Falters(sound, 2)
    followed.read()
    assert not followed.state.done
    followed.log.objects = sound
    followed.read()
    assert followed.update()
    assert followed.state.done
    assert len(rows(tmp_path / "studies/_tables/small/reports.csv")) == 12
