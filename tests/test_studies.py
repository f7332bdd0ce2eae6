"""Whose a study is: the first pipeline that carries it on is in its log, and another one does not share it silently."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

import tune_tasks as tt
from tests.studies import events, write_study
from tune_tasks.errors import ConfigError
from tune_tasks.operate.words import words
from tune_tasks.steps import STEPS, open_for
from tune_tasks.store import open_objects
from tune_tasks.store.ledger import Ledger
from tune_tasks.store.log import StudyLog

MINE, YOURS = "airflow/mine", "airflow/yours"
REFUSED = (
    r"{what} is carried on by the pipeline 'airflow/mine', and this is 'airflow/yours'; give the study another name, "
    r"or, where it shall be shared or the pipeline was renamed, say pipeline='airflow/mine'"
)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return write_study(tmp_path)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "studies" / "small")


def types(url: str) -> list[str]:
    return [event.type for event in events(url)]


def test_the_first_pipeline_that_carries_a_study_on_is_in_its_log_once(spec: Path, url: str) -> None:
    for _ in range(2):
        assert tt.open_study(spec, pipeline=MINE).state.pipeline == MINE
    assert types(url) == ["created", "claimed"]
    assert words(events(url)[1]) == "the pipeline airflow/mine carries the study on"


@pytest.mark.parametrize("by_url", [False, True])
def test_another_pipeline_is_refused_with_the_study_its_pipeline_and_what_to_do(
    spec: Path, url: str, by_url: bool
) -> None:
    tt.open_study(spec, pipeline=MINE)
    with pytest.raises(ConfigError, match=REFUSED.format(what=f"study: {url}")):
        tt.open_study(url if by_url else spec, pipeline=YOURS)
    with pytest.raises(ConfigError, match="is carried on by the pipeline"):
        tt.open_study(tt.open_study(url), pipeline=YOURS)
    assert types(url) == ["created", "claimed"]


def test_another_pipeline_cannot_amend_a_study_before_it_is_refused(tmp_path: Path, spec: Path, url: str) -> None:
    tt.open_study(spec, pipeline=MINE)
    changed = write_study(tmp_path, budget={"trials": 20, "concurrency": 1})
    with pytest.raises(ConfigError, match="is carried on by the pipeline"):
        tt.open_study(changed, amend=True, pipeline=YOURS)
    assert tt.open_study(url).spec.budget.trials == 9


def test_a_pipeline_that_goes_by_the_same_name_shares_the_study(spec: Path, url: str) -> None:
    tt.open_study(spec, pipeline=MINE)
    assert tt.open_study(url, pipeline=MINE).url == url


def test_a_person_opens_any_study_and_leaves_nothing_in_its_log(spec: Path, url: str) -> None:
    tt.open_study(spec, pipeline=MINE)
    tt.sample(tt.open_study(spec))
    assert types(url) == ["created", "claimed", "planned"]


def test_a_study_that_no_pipeline_began_is_its_who_carries_it_on_first(spec: Path, url: str) -> None:
    tt.sample(tt.open_study(spec))
    assert tt.open_study(url).state.pipeline is None
    assert tt.open_study(url, pipeline=YOURS).state.pipeline == YOURS
    with pytest.raises(ConfigError, match="is carried on by the pipeline 'airflow/yours'"):
        tt.open_study(url, pipeline=MINE)


def test_of_pipelines_that_begin_at_once_one_has_the_study(spec: Path, url: str) -> None:
    tt.open_study(spec)
    handles, together = [tt.open_study(url) for _ in range(4)], Barrier(4)

    def open_as(number: int) -> str:
        together.wait()
        try:
            return str(tt.open_study(handles[number], pipeline=f"pipeline-{number}").state.pipeline)
        except ConfigError:
            return "refused"

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(open_as, range(4)))
    assert sorted(found)[1:] == ["refused"] * 3
    assert types(url) == ["created", "claimed"]


def test_the_steps_that_come_after_a_search_are_for_any_pipeline(spec: Path, url: str) -> None:
    tt.open_study(spec, pipeline=MINE)
    refused, known = set(), {*STEPS, "tune", "retrain"}
    for step in known:
        try:
            open_for(step, url, pipeline=YOURS)
        except ConfigError:
            refused.add(step)
    assert known - refused == {"train_final", "deploy", "undeploy"}
    assert types(url) == ["created", "claimed"]


def test_the_pipeline_is_known_after_a_snapshot_too(spec: Path, url: str) -> None:
    study = tt.open_study(spec, pipeline=MINE)
    study.log.snapshot(study.state)
    study.log.settle()
    assert StudyLog(open_objects(url)).load().pipeline == MINE


def test_the_final_study_is_of_the_pipeline_that_trains_it(spec: Path) -> None:
    study = tt.tune(tt.open_study(spec, pipeline=MINE))
    assert tt.train_final(study, pipeline=YOURS).state.pipeline == YOURS
    with pytest.raises(ConfigError, match="small-final is carried on by the pipeline 'airflow/yours'"):
        tt.train_final(study, pipeline=MINE)
    assert study.refresh().pipeline == MINE


def test_no_other_pipeline_begins_a_run_of_a_series(tmp_path: Path, spec: Path) -> None:
    assert tt.retrain(spec, run="0").study is not None
    first = tt.retrain(spec, run="1", pipeline=MINE).study
    assert first is not None
    assert first.state.pipeline == MINE
    for run in ("0", "1", "2"):
        with pytest.raises(ConfigError, match=REFUSED.format(what="series: small")):
            tt.retrain(spec, run=run, pipeline=YOURS)
    assert tt.retrain(spec, run="by-hand").study is not None
    assert tt.retrain(spec, run="2", pipeline=MINE).study is not None
    expected = [("0", None), ("1", MINE), ("by-hand", None), ("2", MINE)]
    series = Ledger(open_objects(str(tmp_path / "studies" / "_series")), "small").entries()
    assert [(entry["run"], entry.get("pipeline")) for entry in series] == expected
