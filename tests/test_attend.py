"""A launch step beside the study's Ray job: whoever launches may die, and so may the job; no trial notices."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.faults.studies import steps
from tests.servers.processes import free_port
from tests.servers.ray_nodes import Nodes, cluster
from tests.studies import COMMAND, events, story, write_study
from tune_tasks.attend import begin, job_name
from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.events import Opened, Started
from tune_tasks.execution.jobs import Jobs
from tune_tasks.studies import find_study, open_study
from tune_tasks.watching import Watch

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A cluster of one node that takes jobs."""
    with cluster(cpus=2, dashboard=free_port()) as started:
        yield started


@pytest.fixture
def study_on(tmp_path: Path, nodes: Nodes) -> Iterator[Callable[..., Path]]:
    """Writes a study whose trials run as a job, and stops its job at the end."""
    written: list[Path] = []

    def write(**changes: Any) -> Path:
        execution = {"runner": "job", "address": nodes.dashboard, **changes.pop("execution", {})}
        environment = {"variables": {"STEP_SECONDS": "0.1"}, **changes.pop("environment", {})}
        changes = {"budget": {"trials": 4, "concurrency": 2}, **changes}
        written.append(write_study(tmp_path, execution=execution, environment=environment, **changes))
        return written[-1]

    yield write
    for spec in written:
        if (spec.parent / "studies").is_dir():
            tt.attend.stop(open_study(url_of(spec)))


def launch(spec: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, "run", str(spec), "--no-promote"], stdout=subprocess.DEVNULL)


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 90
    while not reached():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.1)


def url_of(spec: Path) -> str:
    return str(spec.parent / "studies" / "small")


def running(url: str) -> bool:
    study = find_study(url)
    return study is not None and any(trial.budget > 2 for trial in study.trials)


def drivers(url: str) -> list[str]:
    return [event.owner for event in events(url) if isinstance(event, Opened)]


LONG = {"scheduler": {"name": "none", "max_budget": 40}, "budget": {"trials": 2, "concurrency": 2}}


def test_a_launcher_that_is_killed_costs_no_trial_a_step_and_a_retry_attaches_to_the_same_job(
    study_on: Callable[..., Path],
) -> None:
    spec = study_on(**LONG)
    first, url = launch(spec), url_of(spec)
    until(lambda: running(url))
    first.kill()
    first.wait()
    study = open_study(url)
    outcome = tt.launch_trials(study, "main-0000")
    assert outcome.states == {"completed": 2}
    assert tt.launch_trials(open_study(url), "main-0000") == outcome
    assert drivers(url) == [job_name(study.state, 1)]
    assert Counter(e.trial for e in events(url) if isinstance(e, Started)) == {0: 1, 1: 1}
    assert set(steps(url).values()) == {1}


def test_the_same_study_tells_the_same_story_on_every_runner(tmp_path: Path, nodes: Nodes) -> None:
    """In this process, on a cluster by its address, and as a job on it: one trial at a time, so in one order."""
    told = {}
    runners = {"inline": None, "ray": nodes.address, "job": nodes.dashboard}
    for runner, address in runners.items():
        execution = {"runner": runner, "address": address, "batch": 4}
        spec = write_study(tmp_path / runner, execution=execution, budget={"trials": 5, "concurrency": 1})
        subprocess.run([*COMMAND, "run", str(spec), "--no-promote"], check=True, capture_output=True)
        whole = story(url_of(spec))
        told[runner] = [event for event in whole if event["type"] not in {"created", "requested"}]
        assert sum(event["type"] == "requested" for event in whole) == (runner == "job") * len(rounds(whole))
    opened = {runner: sum(e["type"] == "opened" for e in events) for runner, events in told.items()}
    assert opened == {"inline": len(rounds(told["inline"])), "ray": len(rounds(told["ray"])), "job": 1}
    aside = {"opened", "checkpointed"}  # a checkpoint is published beside the trial, so it is recorded a little later
    without = {runner: [e for e in events if e["type"] not in aside] for runner, events in told.items()}
    assert without["inline"] == without["ray"] == without["job"]
    saved = {runner: {str(e) for e in events if e["type"] == "checkpointed"} for runner, events in told.items()}
    assert saved["inline"] == saved["ray"] == saved["job"]


def rounds(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The launch steps of a story."""
    return [event for event in told if event["type"] == "launched"]


def test_two_launchers_at_once_wait_for_one_job(study_on: Callable[..., Path]) -> None:
    spec = study_on()
    study = open_study(spec)
    batch = tt.sample(study)
    outcomes: list[Any] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(tt.launch_trials(open_study(study.url), batch.id)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes[0] == outcomes[1]
    assert drivers(study.url) == [job_name(study.refresh(), study.state.job)]


def test_a_stopped_job_and_a_killed_one_are_followed_by_the_next_which_goes_on_from_the_checkpoints(
    study_on: Callable[..., Path], nodes: Nodes
) -> None:
    spec = study_on(**LONG)
    process, url = launch(spec), url_of(spec)
    until(lambda: running(url))
    process.kill()
    process.wait()
    study = open_study(url)
    stopped = subprocess.run([*COMMAND, "stop", url], capture_output=True, check=True)
    assert job_name(study.state, 1) in stopped.stdout.decode()
    jobs = Jobs(nodes.dashboard)
    until(lambda: jobs.look(job_name(study.state, 1)).condition == "stopped")
    again = launch(spec)
    until(lambda: len(drivers(url)) == 2)
    until(lambda: open_study(url).state.count("running") == 2)
    os.kill(driver_of(job_name(study.state, 2)), signal.SIGKILL)
    assert again.wait(90) == 0
    assert drivers(url) == [job_name(study.state, attempt) for attempt in (1, 2, 3)]
    assert [trial.budget for trial in open_study(url).trials] == [40, 40]
    begun = [event for event in events(url) if isinstance(event, Started)]
    assert all(event.step > 0 for event in begun if event.attempt > 1)
    assert jobs.look(job_name(study.state, 1)).condition == "stopped", "a stop is no deletion"


def driver_of(name: str) -> int:
    """The process of a job's driver."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"tune_tasks.job" in words and name.encode() in words:
            return int(entry.parent.name)
    raise AssertionError(f"no process drives {name}")


def test_a_job_that_the_cluster_has_forgotten_is_submitted_again_under_the_next_attempt(
    study_on: Callable[..., Path], nodes: Nodes
) -> None:
    spec = study_on()
    study = open_study(spec)
    tt.launch_trials(study, tt.sample(study))
    tt.evaluate_and_prune(study, "main-0000")
    name, jobs = job_name(study.state, 1), Jobs(nodes.dashboard)
    jobs.stop(name)
    until(lambda: jobs.look(name).condition == "stopped")
    jobs._ask("DELETE", f"/api/jobs/{name}").raise_for_status()
    tt.tune(study)
    assert study.state.done
    assert drivers(study.url) == [name, job_name(study.state, 2)]


def test_who_waits_elsewhere_is_told_when_the_launch_is_over(study_on: Callable[..., Path], nodes: Nodes) -> None:
    study, jobs = open_study(study_on()), Jobs(nodes.dashboard)
    batch = tt.sample(study).id
    wait = begin(study, batch, by="me", jobs=jobs)
    assert wait is not None
    assert (wait.job, wait.batch, wait.by, wait.losses) == (job_name(study.state, 1), batch, "me", 0)
    watch, signs, news = Watch(wait, jobs), [], []
    until(lambda: signs.append(watch.look()) or news.extend(watch.news) or signs[-1] is not None)
    assert set(signs[:-1]) <= {None}
    assert signs[-1] == "over"
    assert [event.type for event in news].count("launched") == 1
    assert begin(study, batch, by="me", jobs=jobs, last=wait) is None
    assert sum(tt.launch_trials(study, batch).states.values()) == 4


def test_a_job_is_stopped_only_by_who_was_the_last_to_ask_for_it(study_on: Callable[..., Path], nodes: Nodes) -> None:
    spec, jobs = study_on(**LONG), Jobs(nodes.dashboard)
    study = open_study(spec)
    batch = tt.sample(study).id
    first = begin(study, batch, by="try 1", jobs=jobs)
    until(lambda: running(study.url))
    second = begin(open_study(study.url), batch, by="try 2", jobs=jobs)
    assert first is not None
    assert second is not None
    assert second.job == first.job
    assert not Watch(first, jobs).stop()
    assert jobs.look(first.job).condition == "running"
    assert Watch(second, jobs).stop()
    until(lambda: jobs.look(first.job).condition == "stopped")


def test_a_wait_whose_job_is_gone_goes_on_with_the_next_one_and_counts_it(
    study_on: Callable[..., Path], nodes: Nodes
) -> None:
    spec, jobs = study_on(**LONG), Jobs(nodes.dashboard)
    study = open_study(spec)
    batch = tt.sample(study).id
    wait = begin(study, batch, by="me", jobs=jobs)
    assert wait is not None
    until(lambda: running(study.url))
    jobs.stop(wait.job)
    until(lambda: jobs.look(wait.job).condition == "stopped")
    assert Watch(wait, jobs).look() in {None, "job"}  # the driver may have said a last word
    watch = Watch(wait._replace(position=study.refresh() and study.log.head), jobs)
    assert watch.look() == "job"
    after = begin(study, batch, by="me", jobs=jobs, last=wait)
    assert after is not None
    assert (after.job, after.losses, after.position) == (job_name(study.state, 2), 1, study.log.head)
    assert Watch(after, jobs).stop()


def test_a_cluster_that_does_not_answer_is_said_at_once_to_who_waits_elsewhere(study_on: Callable[..., Path]) -> None:
    study = open_study(study_on())
    with pytest.raises(Unavailable, match=r"no Ray dashboard answers at http://127\.0\.0\.1:1: "):
        begin(study, tt.sample(study).id, by="me", jobs=Jobs("http://127.0.0.1:1"))


def test_a_straggler_goes_on_while_the_next_round_begins(study_on: Callable[..., Path], nodes: Nodes) -> None:
    spec = study_on(scheduler={"name": "none", "max_budget": 3}, budget={"trials": 4, "concurrency": 2})
    source = (spec.parent / "objective.py").read_text()
    slow = 'time.sleep(1.5 if context.trial == 0 else float(os.environ.get("STEP_SECONDS", "0")))'
    usual = 'time.sleep(float(os.environ.get("STEP_SECONDS", "0")))'
    assert usual in source
    (spec.parent / "objective.py").write_text(source.replace(usual, slow))
    study = open_study(spec)
    batch = tt.sample(study, count=3)
    outcome = tt.launch_trials(study, batch)
    assert outcome.states == {"completed": 2, "running": 1}
    assert "a worker was free for the next step" in outcome.reason
    tt.tune(study)
    kinds = [(e.type, e.trial) for e in events(study.url) if e.type in {"started", "ended"}]
    assert kinds.index(("started", 3)) < kinds.index(("ended", 0))
    assert [trial.attempts for trial in study.trials] == [1, 1, 1, 1]


def test_what_the_driver_finds_wrong_with_the_spec_is_raised_where_it_was_launched(
    study_on: Callable[..., Path],
) -> None:
    study = open_study(study_on(metric="los"))
    with pytest.raises(ConfigError, match=r"metric: report 1 has no 'los'.*Did you mean 'loss'"):
        tt.launch_trials(study, tt.sample(study))
    with pytest.raises(ConfigError, match="metric: report 1 has no 'los'"):
        tt.launch_trials(study, "main-0000")
    assert study.refresh().job == 2


def test_the_job_has_the_folder_the_variables_and_the_secrets_and_the_log_has_no_secret(
    study_on: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("A_SECRET", "hunter2-not-in-the-log")
    (tmp_path / "project" / "data").mkdir(parents=True)
    (tmp_path / "project" / "data" / "value.txt").write_text("0.25")
    (tmp_path / "project" / "shipped.py").write_text(
        "import os\nfrom pathlib import Path\n\n\ndef train(config):\n"
        "    value = float(Path('data/value.txt').read_text())\n"
        "    return {'loss': value, 'secret': len(os.environ['A_SECRET']), 'step': float(os.environ['STEP_SECONDS'])}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "project"))
    spec = study_on(
        objective="shipped:train",
        scheduler={"name": "none"},
        environment={"working_dir": "project", "secrets": ["A_SECRET"]},
    )
    study = tt.tune(spec)
    assert [trial.reports[-1].metrics for trial in study.trials] == [{"loss": 0.25, "secret": 22.0, "step": 0.1}] * 4
    written = b"".join(path.read_bytes() for path in Path(study.url).rglob("*") if path.is_file())
    assert b"hunter2" not in written


def test_a_secret_that_is_not_there_is_named(study_on: Callable[..., Path]) -> None:
    study = open_study(study_on(environment={"secrets": ["NOT_SET_ANYWHERE"]}))
    with pytest.raises(ConfigError, match=r"environment\.secrets: NOT_SET_ANYWHERE is not set"):
        tt.launch_trials(study, tt.sample(study))


def test_an_objective_of_this_process_alone_is_refused(study_on: Callable[..., Path]) -> None:
    spec = tt.load_spec(study_on())
    mine = tt.StudySpec(**{**spec.model_dump(), "objective": lambda config: {"loss": config["x"]}})
    study = open_study(mine)
    with pytest.raises(ConfigError, match="known only to this process"):
        tt.launch_trials(study, tt.sample(study))


def test_a_function_for_an_input_that_the_job_cannot_import_is_refused(study_on: Callable[..., Path]) -> None:
    spec = tt.load_spec(study_on())
    mine = tt.StudySpec(
        **{**spec.model_dump(exclude={"inputs"}), "objective": "json:dumps", "inputs": {"n": lambda: 1}}
    )
    study = open_study(mine)
    with pytest.raises(ConfigError, match=r"inputs\.n: .* is known only to this process"):
        tt.launch_trials(study, tt.sample(study))


def test_where_no_dashboard_answers_the_step_says_so_and_may_be_tried_again(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    study = open_study(write_study(tmp_path, execution={"runner": "job", "address": address}))
    batch = tt.sample(study)
    with pytest.raises(Unavailable, match=f"no Ray dashboard answers at {address}"):
        tt.launch_trials(study, batch)
    assert study.refresh().requests == {}
