"""The process beside a launch step shows the study while it runs, and nothing ever waits for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import tune_tasks as tt
from tests.servers.mlflow import silent
from tests.servers.processes import free_port
from tests.studies import COMMAND, write_study
from tune_tasks.studies import Study
from tune_tasks.tracking import beside

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step lasts long enough here, so the process starts at once."""
    monkeypatch.setattr(beside, "DELAY", 0.0)


def processes(url: str) -> list[int]:
    """The processes that follow a study."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if "tune_tasks.tracking" in words and url in words:
                    found.append(int(folder.name))
    return found


def wait(ready: Callable[[], object], seconds: float = 120.0) -> None:
    limit = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.2)


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Path]:
    """Where the objectives of these tests look for what is shown."""
    os.environ["SHOWN"] = str(tmp_path / "studies/_tables/small/reports.csv")
    yield Path(os.environ["SHOWN"])
    del os.environ["SHOWN"]


def watches(config: dict[str, float]) -> None:
    """Goes on only when the trial before, whose reports are in the log by now, is shown."""
    before, shown = tt.get_context().trial - 1, Path(os.environ["SHOWN"])
    wait(lambda: before < 0 or (shown.exists() and f"\n{before},2," in shown.read_text()))
    for step in (1, 2):
        tt.report({"loss": config["x"] / step})
        time.sleep(0.01)  # longer than the group of a commit lasts here


def test_reports_are_shown_while_the_step_runs_and_the_process_ends_with_it(
    opened: Callable[..., Study], seen: Path
) -> None:
    study = opened(watches, tracking=["files"], execution={"runner": "inline", "group_time": 0.001})
    outcome = tt.launch_trials(study, tt.sample(study))
    assert outcome.states == {"completed": 4}
    wait(lambda: not processes(study.url))


def notes_processes(config: dict[str, float]) -> None:
    """Waits for the process, and writes down which one it is; the study's URL comes with the environment."""
    wait(lambda: processes(os.environ["URL"]))
    Path(os.environ["SHOWN"] + f".{tt.get_context().trial}").write_text(json.dumps(processes(os.environ["URL"])))
    tt.report({"loss": config["x"]})


def test_a_loop_over_short_steps_keeps_one_process(
    opened: Callable[..., Study], seen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = opened(notes_processes, tracking=["files"], execution={"runner": "inline", "batch": 1})
    monkeypatch.setenv("URL", study.url)
    seen.parent.mkdir(parents=True)
    tt.tune(study)
    assert study.state.rounds == {"main": 4}
    noted = [json.loads(path.read_text()) for path in seen.parent.glob("reports.csv.*")]
    assert len(noted) == 4
    assert len({tuple(one) for one in noted}) == 1
    assert len(noted[0]) == 1


def hangs_beside(config: dict[str, float]) -> None:
    """Goes on only when a tracker has connected to the server that never answers."""
    port = int(os.environ["PORT"])
    wait(lambda: any(f":{port:04X}" in line.split()[2] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]))
    tt.report({"loss": config["x"]})


def test_a_server_that_never_answers_holds_up_no_launch_step(
    opened: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3600")  # whoever waits for it, waits for longer than this test
    with silent() as url:
        monkeypatch.setenv("PORT", url.rpartition(":")[2])
        study = opened(hangs_beside, tracking=[{"name": "mlflow", "uri": url}])
        outcome = tt.launch_trials(study, tt.sample(study))
        assert outcome.states == {"completed": 4}
        wait(lambda: not processes(study.url))  # it was killed: to SIGTERM it cannot listen


def test_a_server_that_never_answers_holds_up_the_end_of_a_study_only_for_a_moment(
    opened: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with silent() as url:
        monkeypatch.setenv("PORT", url.rpartition(":")[2])
        study = tt.tune(opened(hangs_beside, tracking=[{"name": "mlflow", "uri": url}]))
    assert study.state.done
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"tracking: mlflow: {url}: MLflow did not do as asked")


def test_the_process_ends_when_its_parent_was_killed(tmp_path: Path) -> None:
    spec = write_study(tmp_path, tracking=["files"], budget={"trials": 400, "concurrency": 1})
    program = (
        "from tune_tasks.tracking import beside; beside.DELAY = 0; import sys, tune_tasks as tt; tt.tune(sys.argv[1])"
    )
    environment = {**os.environ, "STEP_SECONDS": "0.2"}
    parent = subprocess.Popen([sys.executable, "-c", program, str(spec)], env=environment, cwd=ROOT)
    url = str(tmp_path / "studies/small")
    try:
        wait(lambda: processes(url))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait(lambda: not processes(url))


def test_it_says_one_line_of_a_server_that_is_down_and_nothing_else(opened: Callable[..., Study]) -> None:
    uri = f"http://someone:canary-secret@127.0.0.1:{free_port()}"
    study = opened(quick, tracking=[{"name": "mlflow", "uri": uri}])
    done = subprocess.run(
        [sys.executable, "-m", "tune_tasks.tracking", tt.tune(study).url, "--parent", str(os.getpid())],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("tracking: mlflow: http://127.0.0.1:")
    assert "secret" not in done.stderr


def quick(config: dict[str, float]) -> dict[str, float]:
    return {"loss": config["x"]}


def test_no_process_is_started_for_a_url_with_credentials_nor_where_there_is_nothing_to_show(
    opened: Callable[..., Study], s3: str
) -> None:
    private = opened(quick, store=s3.replace("s3://", "s3://user:canary-secret-8c1f2e@"), tracking=["files"])
    plain = opened(quick, store=s3, name="plain", tracking=["files"])
    nothing = opened(quick, name="nothing", tracking=["mlflow"])  # its promotion has no registry
    memory = opened(quick, store="memory://tracking", tracking=["files"])
    wanted = {}
    for name, study in {"private": private, "plain": plain, "nothing": nothing, "memory": memory}.items():
        with beside.tracked(study) as shown:
            wanted[name] = shown.wanted
            shown.end()  # before it starts one
    assert wanted == {"private": False, "plain": True, "nothing": False, "memory": False}


def test_a_study_that_is_over_before_its_process_began_is_shown_at_its_end(
    opened: Callable[..., Study], seen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "DELAY", 3600.0)
    tt.tune(opened(quick, tracking=["files"]))
    assert len(seen.read_text().splitlines()) == 5


def test_an_orchestrator_that_runs_step_by_step_has_it_shown_by_the_step_that_ends_the_study(
    tmp_path: Path, seen: Path
) -> None:
    spec = write_study(tmp_path, tracking=["files"], scheduler="none", objective="objective:once")
    for command in (
        ["sample"],
        ["launch-trials", "--batch", "main-0000"],
        ["evaluate-and-prune", "--batch", "main-0000"],
    ):
        step, *options = command
        arguments = [*COMMAND, step, str(spec), *options, "--set", "budget.trials=4"]
        subprocess.run(arguments, check=True, capture_output=True, cwd=ROOT)
    assert len(seen.read_text().splitlines()) == 5
