"""What a study shows in Prefect: artifacts in place, of a size that does not grow, few calls, and no secret."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

import tune_tasks as tt
from tests.histories import Story
from tests.prefect_server import PrefectServer, shared
from tests.studies import write_study
from tune_tasks import steps
from tune_tasks.events import Advance, Assignment, Judged, Launched, Planned, Proposal, Prune, Requested
from tune_tasks.spec import load_spec
from tune_tasks.studies import append
from tune_tasks_prefect import artifacts as artifacts_of
from tune_tasks_prefect import showing
from tune_tasks_prefect.artifacts import masked
from tune_tasks_prefect.showing import code, key_of, links_of, plain, progress, show_step

pytestmark = pytest.mark.prefect

EVIL = "<img src=x onerror=alert(1)> [here](javascript:alert(1)) | postgresql://ada:hushhush@db/x"


@pytest.fixture(scope="module")
def server() -> Iterator[PrefectServer]:
    running = shared()
    with temporary_settings({PREFECT_API_URL: running.api, PREFECT_HOME: running.home}):
        yield running


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every request that this process makes of Prefect's server for an artifact."""
    made: list[str] = []
    send = httpx.Client.send

    def counted(client: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        if "/artifacts/" in request.url.path:
            made.append(f"{request.method} {request.url.path.partition('/artifacts/')[2]}")
        return send(client, request, **options)

    monkeypatch.setattr(httpx.Client, "send", counted)
    return made


@task(cache_policy=NO_CACHE)
def launched(study: tt.Study, batch: Any) -> None:
    with progress(study) as on_change:
        steps.launch_trials(study, batch, on_change=on_change)


@task(cache_policy=NO_CACHE)
def judged(study: tt.Study, batch: Any) -> bool:
    verdict = steps.evaluate_and_prune(study, batch)
    show_step("evaluate_and_prune", study, verdict.model_dump())
    return verdict.done


@task(cache_policy=NO_CACHE)
def promoted(study: tt.Study) -> None:
    show_step("promote_best", study, tt.promote_best(study).model_dump())


@flow
def tuned(spec: str) -> str:
    study = tt.open_study(spec)
    done = False
    while not done:
        batch = tt.sample(study)
        launched(study, batch)
        done = judged(study, batch)
    promoted(study)
    return study.url


def artifacts(server: PrefectServer, study: tt.Study) -> dict[str, list[dict[str, Any]]]:
    """Those of a study, by what they are."""
    keys = {key_of(study, what): what for what in ("progress", "leaderboard", "report")}
    rows = server.rows("artifacts", artifacts={"key": {"any_": list(keys)}}, limit=200)
    found: dict[str, list[dict[str, Any]]] = {what: [] for what in keys.values()}
    for row in rows:
        found[keys[row["key"]]].append(row)
    return found


def test_a_flow_run_has_one_artifact_of_each_kind_and_they_tell_what_the_study_came_to(
    server: PrefectServer, tmp_path: Path
) -> None:
    state = tuned(str(write_study(tmp_path)), return_state=True)
    study = tt.open_study(state.result())
    found = artifacts(server, study)
    assert {what: len(rows) for what, rows in found.items()} == {"progress": 1, "leaderboard": 1, "report": 1}
    ((bar,), (board,), (report,)) = found["progress"], found["leaderboard"], found["report"]
    assert {row["flow_run_id"] for row in (bar, board, report)} == {str(state.state_details.flow_run_id)}
    assert (bar["type"], board["type"], report["type"]) == ("progress", "table", "markdown")

    assert bar["data"] == 100.0
    assert "small: loss" in bar["description"]
    assert "done with 9 of 9 trials" in bar["description"]
    assert code(study.url) in bar["description"]

    rows = json.loads(board["data"])
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 10)]
    assert rows[0]["trial"] == study.best.number
    assert rows[0]["parameters"] == f"x={study.best.params['x']:.4g}"
    assert all(row["why"] for row in rows)

    text = report["data"]
    for number in range(study.state.rounds["main"]):
        assert f"| main-{number:04d} |" in text
        assert plain(study.state.steps[f"main-{number:04d}/evaluate"]["reason"]) in text
    assert "## Promotion" in text
    assert "is the champion" in text
    assert f"tune-tasks report {study.url}" in text


def test_a_flow_run_that_is_run_again_in_another_process_brings_the_same_artifacts_up_to_date(
    server: PrefectServer, tmp_path: Path
) -> None:
    spec, tries = str(write_study(tmp_path)), []

    @flow(retries=1)
    def stumbling() -> str:
        study = tt.open_study(spec)
        judged(study, _launch(study))
        tries.append(study.url)
        if len(tries) == 1:
            artifacts_of._ids.clear()  # as in a new process
            raise OSError("the worker lost its connection")
        return study.url

    study = tt.open_study(stumbling())
    assert [len(rows) for rows in artifacts(server, study).values()] == [0, 1, 1]  # it was launched without a flow
    tuned(study.url)
    assert [len(rows) for rows in artifacts(server, study).values()] == [1, 2, 2]


def _launch(study: tt.Study) -> Any:
    batch = tt.sample(study)
    tt.launch_trials(study, batch)
    return batch


def test_a_launch_is_shown_at_most_once_in_the_pause_and_not_at_all_while_nothing_is_new(
    server: PrefectServer, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(showing, "_FIRST", 0.0)
    monkeypatch.setattr(showing, "_PAUSE", 1.0)
    spec = str(write_study(tmp_path, budget={"trials": 9, "concurrency": 1}))
    seconds: list[float] = []

    @flow
    def watched() -> None:
        study = tt.open_study(spec)
        _launch(study)
        state = study.state
        begun = time.monotonic()
        with progress(study) as on_change:
            while time.monotonic() < begun + 3:
                on_change(state)
                time.sleep(0.01)
            quiet = len(calls)
            for number in range(300):
                state.trials[0] = state.trials[0].changed(value=-float(number))
                state.changes.note(0)
                on_change(state)
                time.sleep(0.01)
        seconds.append(time.monotonic() - begun)
        assert quiet == 1

    watched()
    assert calls[0] == "POST "
    assert all(call.startswith("PATCH ") for call in calls[1:])
    assert 3 <= len(calls) <= 3 + seconds[0] / 1.0


def test_a_study_that_is_soon_over_costs_one_call_for_its_progress(
    server: PrefectServer, tmp_path: Path, calls: list[str]
) -> None:
    @flow
    def short(spec: str) -> None:
        study = tt.open_study(spec)
        launched(study, tt.sample(study))

    short(str(write_study(tmp_path)))
    assert calls == ["POST "]


def test_a_server_that_does_not_answer_holds_up_no_trial_and_fails_no_step(
    server: PrefectServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(showing, "_FIRST", 0.0)
    monkeypatch.setattr(artifacts_of, "PATIENCE", 0.5)
    longest = [0.0]
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()

        @flow
        def alone(spec: str) -> Any:
            study = tt.open_study(spec)
            batch = tt.sample(study)
            with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{deaf.getsockname()[1]}/api"}):
                with progress(study) as on_change:
                    steps.launch_trials(study, batch, on_change=_timed(on_change, longest))
                verdict = steps.evaluate_and_prune(study, batch)
                show_step("evaluate_and_prune", study, verdict.model_dump())
            return verdict

        with caplog.at_level(logging.WARNING):
            assert alone(str(write_study(tmp_path))).batch == "main-0000"
    assert "Not shown in Prefect: " in caplog.text
    assert longest[0] < artifacts_of.PATIENCE  # it was never waited for


def _timed(call: Callable[[Any], None], longest: list[float]) -> Callable[[Any], None]:
    def timed(state: Any) -> None:
        begun = time.monotonic()
        call(state)
        longest[0] = max(longest[0], time.monotonic() - begun)

    return timed


def test_the_log_of_a_launch_has_a_line_for_what_is_worth_one(server: PrefectServer, tmp_path: Path) -> None:
    @flow
    def short(spec: str) -> None:
        study = tt.open_study(spec)
        launched(study, tt.sample(study))

    state = short(str(write_study(tmp_path)), return_state=True)
    wanted = {"flow_run_id": {"any_": [str(state.state_details.flow_run_id)]}}

    def lines() -> list[str]:
        found = [row["message"] for row in server.rows("logs", logs=wanted, sort="TIMESTAMP_ASC")]
        return [line for line in found if "trials 4/9" in line]

    found = server.wait_for(lines)
    assert "best loss" in found[-1]


def test_outside_a_run_nothing_is_shown(tmp_path: Path, calls: list[str]) -> None:
    study = tt.open_study(str(write_study(tmp_path)))
    with progress(study) as on_change:
        steps.launch_trials(study, tt.sample(study), on_change=on_change)
    show_step("evaluate_and_prune", study, {})
    assert calls == []


def told(rounds: int, each: int, reason: str = "the best third advances") -> Any:
    """A study of so many rounds, as what shows it needs it."""
    space = {"x": {"type": "float", "low": 0.0, "high": 1.0}, "kind": {"type": "categorical", "choices": ["a", "b"]}}
    spec = {"name": "small", "objective": "o:f", "metric": "loss", "mode": "min", "space": space}
    scheduler = {"name": "asha", "min_budget": 1, "max_budget": 9, "reduction_factor": 3}
    story = Story(load_spec({**spec, "scheduler": scheduler, "budget": {"trials": rounds * each}}))
    for number in range(rounds):
        trials = range(number * each, (number + 1) * each)
        batch, time = f"main-{number:04d}", story.time
        proposals = tuple(Proposal(number=n, params={"x": 0.1, "kind": "a"}, reason=reason) for n in trials)
        assignments = tuple(Assignment(trial=n, budget=1, last=False, reason="new") for n in trials)
        about = {"batch": batch, "time": time}
        story.apply(
            Planned(
                key=f"{batch}/sample",
                run="main",
                round=number,
                proposals=proposals,
                assignments=assignments,
                exhausted=False,
                **about,
            )
        )
        story.open()
        for trial in trials:
            story.train(trial, [{"loss": 0.123456}], "failed" if trial % 3 == 2 else "reached", error=reason * 40)
        best = {"best": 0, "value": 0.123456, "reason": reason}
        story.apply(Launched(key=f"{batch}/launch", states={"paused": each}, **about, **best))
        advances = tuple(Advance(trial=n, budget=3, last=False, reason="among the best") for n in list(trials)[:1])
        prunes = tuple(Prune(trial=n, reason="not") for n in list(trials)[1:2])
        story.apply(Judged(key=f"{batch}/evaluate", advances=advances, prunes=prunes, done=False, **about, **best))
    return SimpleNamespace(state=story.state, spec=story.state.spec, url="s3://bucket/studies/small")


def sizes(study: Any) -> dict[str, int]:
    shown = {
        "progress": showing._progress("key", study.state, links_of(study)),
        "leaderboard": showing._leaderboard(study),
        "report": showing._report(study, links_of(study), promotion=False),
    }
    return {what: len(str(each.data)) + len(each.description) for what, each in shown.items()}


def test_no_artifact_grows_with_the_number_of_trials() -> None:
    small, large = sizes(told(30, 20)), sizes(told(300, 20))
    for what, size in large.items():
        assert size < 1.1 * small[what], what
        assert size < 30_000


def test_what_a_study_says_is_shown_as_it_is_and_without_credentials() -> None:
    study = told(1, 3, EVIL)
    report = showing._report(study, links_of(study), promotion=False)
    board = showing._leaderboard(study)
    for text in (report.data, report.description, board.description):
        assert "<img" not in str(text).replace("\\<", "")
        assert "[here]" not in str(text).replace("\\[", "")
        assert "hushhush" not in str(text)
    assert "hushhush" not in board.data
    rows = [line for line in report.data.splitlines() if line.startswith("| main")]
    assert [line.replace("\\|", "").count("|") for line in rows] == [8]


def test_credentials_are_masked_wherever_a_url_has_them() -> None:
    assert masked("see postgresql://ada:hush@db/x and s3://:hush@b") == "see postgresql://***@db/x and s3://***@b"
    assert masked("s3://bucket/a@b:c and http://head:8265/") == "s3://bucket/a@b:c and http://head:8265/"


def test_the_links_name_the_ray_job_and_mlflow_where_there_are_any(tmp_path: Path) -> None:
    execution = {"runner": "job", "address": "http://ada:hush@head:8265"}
    tracking = ["files", {"name": "mlflow", "uri": "http://mlflow:5000"}]
    study = tt.open_study(str(write_study(tmp_path, execution=execution, tracking=tracking)))
    assert "Ray job" not in links_of(study)
    append(study, lambda state: Requested(batch="main-0000", job=2, time=study.now(), by=None))
    told = links_of(study)
    assert told.startswith(f"study `{study.url}`")
    assert f"[Ray job](http://head:8265/#/jobs/tune-tasks-{study.state.study[:16]}-2)" in told
    assert "[MLflow](http://mlflow:5000/#/experiments?experimentSearchFilter=small)" in told
    assert "hush" not in told


def test_the_keys_of_artifacts_are_what_prefect_allows_and_differ_for_two_stores() -> None:
    def of(name: str, url: str) -> str:
        return key_of(SimpleNamespace(spec=SimpleNamespace(name=name), url=url), "report")  # type: ignore[arg-type]

    one, other = of("Digits_MLP.v2", "s3://a/Digits_MLP.v2"), of("Digits_MLP.v2", "s3://b/Digits_MLP.v2")
    assert one.startswith("digits-mlp-v2-")
    assert one != other
    assert of("Digits_MLP.v2", "s3://a/Digits_MLP.v2") == one
