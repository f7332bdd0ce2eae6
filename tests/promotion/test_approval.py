"""A promotion that waits is answered once, in time and by name; and then carried out, or not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.promotions import again, moved, study_at, told
from tests.studies import COMMAND
from tune_tasks.errors import ConfigError
from tune_tasks.events import Approved, Promoted


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "one"
    study_at(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return moved(made, tmp_path / "one")


def waiting(folder: Path, **promotion: Any) -> tt.Study:
    study = again(folder, approval="required", approval_time=1000, **promotion)
    study.clock = lambda: 5000.0
    return study


def test_a_promotion_waits_until_someone_agrees(folder: Path) -> None:
    study = waiting(folder)
    model = tt.promote_best(study)
    assert (model.promoted, model.pending, model.uri) == (False, True, None)
    assert "waits for approval until 1970-01-01 01:40 UTC (tune-tasks approve|reject" in model.reason
    assert tt.promote_best(study) == model
    assert told(study, Promoted) == []
    assert study.objects.list("models/") == []
    said = tt.approve(study, by="Ada", why="the digits\nlook right")
    done = tt.promote_best(study)
    assert (done.promoted, done.pending, done.trial) == (True, False, 2)
    assert done.approval == {"approved": True, "by": "Ada", "why": "the digits look right", "time": 5000.0}
    assert json.loads((Path(str(done.path)) / "model.json").read_text())["approval"] == done.approval
    assert [said] == told(study, Approved)


def test_a_promotion_that_someone_refuses_leaves_the_champion(folder: Path) -> None:
    study = waiting(folder)
    tt.promote_best(study)
    tt.reject(study, by="Ada", why="it cannot read 8", run="main")
    model = tt.promote_best(study)
    assert (model.promoted, model.reason) == (False, "rejected by Ada: it cannot read 8")
    assert tt.promote_best(study) == model
    assert study.objects.list("models/") == []


def test_a_promotion_that_nobody_answers_expires(folder: Path) -> None:
    study = waiting(folder)
    tt.promote_best(study)
    study.clock = lambda: 6000.0
    with pytest.raises(ConfigError, match=r"main-.*/promote expired at 1970-01-01 01:40 UTC"):
        tt.approve(study, by="Ada", why="late")
    model = tt.promote_best(study)
    assert (model.promoted, model.reason) == (False, "nobody agreed until 1970-01-01 01:40 UTC")
    with pytest.raises(ConfigError, match="expired"):
        tt.approve(study, by="Ada", why="later still")
    assert tt.promote_best(study) == model


def test_an_approval_that_nothing_waits_for_is_refused(folder: Path) -> None:
    study = waiting(folder)
    with pytest.raises(ConfigError, match="no promotion was decided yet; run promote-best"):
        tt.approve(study, by="Ada", why="early")
    tt.promote_best(study)
    with pytest.raises(ConfigError, match="nightly-0000/promote was not decided yet"):
        tt.approve(study, by="Ada", why="another run", run="nightly")
    with pytest.raises(ConfigError, match="why: ' ' is not allowed"):
        tt.approve(study, by="Ada", why=" ")
    tt.approve(study, by="Ada", why="yes")
    with pytest.raises(ConfigError, match="was approved by Ada at 1970-01-01 01:23 UTC: yes"):
        tt.reject(study, by="Bob", why="no")
    assert [event.approved for event in told(study, Approved)] == [True]


def test_of_two_promotions_that_wait_one_must_be_named(folder: Path) -> None:
    study = waiting(folder)
    tt.promote_best(study, run="monday")
    tt.promote_best(study, run="tuesday")
    with pytest.raises(ConfigError, match=r"several runs wait \(monday, tuesday\); name one"):
        tt.approve(study, by="Ada", why="which?")
    assert tt.approve(study, by="Ada", why="this", run="tuesday").key == "tuesday-0000/promote"


def test_a_promotion_that_did_not_pass_asks_nobody(folder: Path) -> None:
    study = waiting(folder, limits={"size": {"max": 1}})
    assert not tt.promote_best(study).pending
    with pytest.raises(ConfigError, match="did not pass: trial 2"):
        tt.approve(study, by="Ada", why="anyway")


def from_a_shell(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120)


def test_a_person_looks_at_the_leaderboard_and_agrees_from_a_shell(folder: Path) -> None:
    study = again(folder, approval="required", approval_time=3600)
    tt.promote_best(study)
    shown = json.loads(from_a_shell("leaderboard", study.url, "--format", "json").stdout)
    assert shown["contenders"][2]["bounds"]["error"] == list(tt.promote_best(study).bounds["error"])
    assert [each["trial"] for each in shown["contenders"]] == [1, 0, 2, 3]
    assert shown["approval"].startswith("waits until")
    assert "| # | model | loss |" in from_a_shell("leaderboard", study.url, "--format", "markdown").stdout
    done = from_a_shell("approve", study.url, "--by", "Ada", "--why", "looks right")
    assert (done.returncode, json.loads(done.stdout)["approved"]) == (0, True)
    assert "approved by Ada" in from_a_shell("leaderboard", study.url).stdout
    late = from_a_shell("reject", study.url, "--by", "Bob", "--why", "too late")
    assert (late.returncode, late.stdout) == (2, "")
    assert "was approved by Ada" in late.stderr
    assert tt.promote_best(study).promoted
