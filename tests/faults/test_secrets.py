"""Credentials in the URL of a store: they work, and are nowhere to be found afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers import BUCKET
from tests.studies import write_study
from tune_tasks.cli import main
from tune_tasks.store import open_objects

CANARY = "canary/in+the-url-77aa"
QUOTED = "canary%2Fin%2Bthe-url-77aa"

pytestmark = [pytest.mark.s3, pytest.mark.slow]


class Commands:
    """Runs commands in this process, and keeps everything that they say, with all that they log."""

    def __init__(self, capture: pytest.CaptureFixture[str], log: pytest.LogCaptureFixture) -> None:
        self._capture, self._log = capture, log
        self.said = ""

    def __call__(self, *arguments: str, code: int = 0) -> None:
        assert main(["-v", *arguments]) == code
        self.said += "".join(self._capture.readouterr())

    @property
    def everything(self) -> str:
        return self.said + self._log.text


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Commands:
    return Commands(capsys, caplog)


def test_a_secret_in_the_url_is_in_nothing_that_is_written_or_said(tmp_path: Path, s3: str, run: Commands) -> None:
    place = s3.rpartition("/")[2]
    with_secret = f"s3://someone:{QUOTED}@{BUCKET}/{place}"
    spec = write_study(tmp_path, store=with_secret, budget={"trials": 2, "concurrency": 1})
    url = f"{with_secret}/small"
    run("run", str(spec))
    for command in (["status"], ["report"], ["report", "--format", "html"], ["log"], ["fsck"], ["gc"]):
        run(*command, url)
    run("logs", url, "0")
    run("status", url.replace(place, "nothing"), code=3)
    run("status", url.replace(BUCKET, "no-such-bucket"), code=2)
    run("run", str(spec), "--set", "budget.trials=x", code=2)
    run("run", str(spec), "--set", "mode=max", code=2)
    assert f"s3://{BUCKET}/{place}/small" in run.everything
    for secret in (CANARY, QUOTED):
        assert secret not in run.everything
        for key in (objects := open_objects(f"{s3}/small")).list(""):
            assert secret.encode() not in (objects.read(key) or b""), key


def test_credentials_that_no_worker_would_get_are_refused_before_anything_is_run(
    tmp_path: Path, s3: str, run: Commands
) -> None:
    place = s3.rpartition("/")[2]
    spec = write_study(tmp_path, store=f"s3://someone:{QUOTED}@{BUCKET}/{place}", execution={"runner": "ray"})
    run("run", str(spec), code=2)
    assert "do not reach Ray's workers; put them into the environment" in run.everything
    assert CANARY not in run.everything
