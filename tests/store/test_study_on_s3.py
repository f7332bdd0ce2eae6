"""A whole study on S3: killed, resumed, promoted; and no secret of the store in anything that is written or said."""

from __future__ import annotations

import os
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.servers import SECRET
from tests.studies import COMMAND, write_study
from tune_tasks.errors import Unreachable
from tune_tasks.spec import StudySpec, load_spec
from tune_tasks.store import open_objects
from tune_tasks.studies import open_study

pytestmark = [pytest.mark.s3, pytest.mark.slow]


def open_spec(folder: Path, store: str) -> StudySpec:
    return load_spec(write_study(folder, store=store))


def start(*arguments: str, cwd: Path, seconds: float = 0.0) -> subprocess.Popen[bytes]:
    """Starts a command that appends all that it says to `said`."""
    with (cwd / "said").open("ab") as said:
        return subprocess.Popen(
            [*COMMAND, "-v", *arguments],
            env={**os.environ, "STEP_SECONDS": str(seconds)},
            cwd=cwd,
            stdout=said,
            stderr=subprocess.STDOUT,
        )


def test_a_store_that_cannot_be_reached_is_bad_input_and_names_the_store(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("tune_tasks.studies.open_objects", partial(open_objects, deadline=1.0))
    with pytest.raises(Unreachable, match=rf"store: {s3}/small: .* check the URL") as refused:
        open_study(open_spec(tmp_path, s3))
    assert refused.value.exit_code == 2
    assert SECRET not in str(refused.value)


def test_a_study_on_s3_is_killed_resumed_elsewhere_and_promoted_without_a_trace_of_the_secret(
    tmp_path: Path, s3: str
) -> None:
    url, objects = f"{s3}/small", open_objects(f"{s3}/small")
    spec = write_study(tmp_path, store=s3, budget={"trials": 4})
    killed = start("run", str(spec), cwd=tmp_path, seconds=0.3)
    while len(objects.list("ckpt/")) < 4:
        assert killed.poll() is None
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    known = {key: objects.read(key) for key in objects.list("log/")}

    resumed = start("resume", url, cwd=tmp_path)
    resumed.wait(timeout=120)
    said = (tmp_path / "said").read_text()
    assert resumed.returncode == 0, said
    study = open_study(url)
    assert study.state.done
    assert len(study.trials) == 4
    assert study.state.promotions[0]["promoted"]
    assert {key: objects.read(key) for key in known} == known
    assert any(trial.attempts > 1 for trial in study.trials)
    assert objects.list("models/")
    assert SECRET not in said
    for key in objects.list(""):
        assert SECRET.encode() not in (objects.read(key) or b""), key
