"""A promotion measures candidates and champion on the same data, asks every gate, and says why."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.mlflow_database import new_database
from tests.promotions import again, calls, moved, study_at, told
from tests.studies import write_study
from tune_tasks.errors import ConfigError, CorruptLog
from tune_tasks.events import Evaluated, Promoting
from tune_tasks.operate import check_study
from tune_tasks.store.local import LocalObjects


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "one"
    study_at(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return moved(made, tmp_path / "one")


def test_the_best_on_the_held_out_data_is_promoted_and_not_the_best_of_the_search(folder: Path) -> None:
    study = again(folder, repeats=2)
    assert study.best is not None
    model = tt.promote_best(study)
    assert (study.best.number, model.trial, model.promoted) == (1, 2, True)
    measured = told(study, Evaluated)
    assert [(event.model.rpartition("-")[0], event.seed) for event in measured] == [
        (f"trial-{trial}", seed) for trial in (1, 0, 2) for seed in (0, 1)
    ]
    assert [line.split()[1:] for line in calls(folder)] == [[str(seed), "data", "of", "May"] for seed in (0, 1)] * 3
    assert all(event.examples == 40 for event in measured)
    low, high = model.bounds["error"]
    assert low < model.evaluation["error"] < high
    assert [(gate.name, gate.passed) for gate in model.gates] == [("improvement", True)]
    assert model.data == "data of May"


def test_a_second_promotion_measures_the_champion_too_and_the_same_model_is_no_better(folder: Path) -> None:
    study = again(folder)
    tt.promote_best(study)
    model = tt.promote_best(study, run="tuesday")
    assert not model.promoted
    assert "trial 2 at step" in model.reason
    assert "is the same as the champion's" in model.reason
    assert [event.model.partition("-")[0] for event in told(study, Evaluated)][3:] == ["trial"] * 3 + ["version"]
    assert tt.promote_best(study, run="tuesday") == model


def test_a_better_model_of_another_study_takes_the_champions_place(folder: Path, tmp_path: Path) -> None:
    first = again(folder, candidates=1)
    assert tt.promote_best(first).trial == 1
    second = study_at(tmp_path / "two", "next", store=str(folder / "studies"))
    model = tt.promote_best(second)
    assert (model.promoted, model.trial) == (True, 2)
    assert "with 95% confidence as the best of 3, over 40 examples, it is at least" in model.reason
    assert model.champion is not None
    assert model.champion["study"] == first.url


def test_a_kill_between_two_measurements_repeats_none_that_was_recorded(folder: Path) -> None:
    study = again(folder, evaluate="objective:killed_at_third", repeats=2)
    with pytest.raises(KeyboardInterrupt):
        tt.promote_best(study)
    assert [(event.model[:7], event.seed) for event in told(study, Evaluated)] == [("trial-1", 0), ("trial-1", 1)]
    fresh = again(folder, evaluate="objective:killed_at_third", repeats=2)
    assert tt.promote_best(fresh).trial == 2
    done = [line for line in calls(folder) if line != "killed"]
    assert len(done) == len(set(done)) == len(told(study, Evaluated)) == 6


def test_a_spec_that_asks_for_fewer_repeats_after_a_kill_compares_as_many_of_each(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        tt.promote_best(again(folder, evaluate="objective:killed_at_third", repeats=2))
    study = again(folder)
    assert tt.promote_best(study).trial == 2
    assert len(told(study, Evaluated)) == 4


class Killed:
    """Stops a process before or after the n-th thing that it writes to the store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, when: str) -> None:
        self.left, self.when = number, when
        for name in ("create", "upload", "replace", "delete"):
            monkeypatch.setattr(LocalObjects, name, self.wrapped(getattr(LocalObjects, name)))

    def wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0 and self.when == "before":
                raise KeyboardInterrupt
            done = real(*given, **options)
            if self.left == 0:
                raise KeyboardInterrupt
            return done

        return call


@pytest.mark.slow
def test_killed_at_any_write_it_ends_as_if_it_had_never_been(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each measurement once but for the one under way, one decision, one new champion, and nothing lost."""
    assert tt.promote_best(again(folder, candidates=1), run="first").trial == 1
    expected = None
    for number, when in [(0, "never"), *((number, when) for number in range(1, 60) for when in ("before", "after"))]:
        copy = moved(folder, tmp_path / f"{number}-{when}")
        study = again(copy, candidates=3)
        already = len(calls(copy))
        with monkeypatch.context() as patch:
            killed = Killed(patch, number, when)
            try:
                model = tt.promote_best(study, run="second")
            except KeyboardInterrupt:
                patch.undo()
                model = tt.promote_best(again(copy, candidates=3), run="second")
        seen = model.model_dump(include={"promoted", "trial", "step", "gates", "evaluation", "bounds", "reason"})
        expected = expected or seen
        assert seen == expected, (number, when)
        measured = [event.model for event in told(study, Evaluated) if event.key.startswith("second")]
        assert len(measured) == len(set(measured)) == 4
        assert len(calls(copy)) - already in {4, 5}
        assert [reign.version for reign in tt.history(study)] == ["1", "2"]
        assert [finding for finding in check_study(study.url).findings if finding.severity != "note"] == []
        if killed.left > 0:
            break  # it writes no more often than that
    assert 12 < number < 59


def test_every_gate_is_asked_and_the_verdict_names_those_that_say_no(folder: Path) -> None:
    study = again(folder, limits={"size": {"max": 10}, "train_seconds": {"max": 1000}}, gates=["objective:ours"])
    model = tt.promote_best(study)
    assert not model.promoted
    assert {gate.name: gate.passed for gate in model.gates} == {
        "improvement": True,
        "limits.size": False,
        "limits.train_seconds": True,
        "objective:ours": False,
    }
    assert "limits.size: size is" in model.reason
    assert "of trial-2-" in model.reason
    assert [event.trial for event in told(study, Promoting)] == [None]


def test_limits_hold_without_an_evaluation_too(folder: Path) -> None:
    study = again(folder, evaluate=None, metric=None, limits={"latency": {"max": 5}, "loss": {"max": 1e-9}})
    with pytest.raises(ConfigError, match=r"give promotion\.example too"):
        tt.promote_best(study)
    study = again(
        folder,
        evaluate=None,
        metric=None,
        example="objective:input_rows",
        limits={"latency": {"max": 5}, "loss": {"max": 1e-9}},
    )
    model = tt.promote_best(study)
    assert [(gate.name, gate.passed) for gate in model.gates] == [
        ("improvement", True),
        ("limits.latency", True),
        ("limits.loss", False),
    ]


def test_a_slice_that_got_worse_stops_the_promotion(folder: Path) -> None:
    again_with = {"slices": 1e-9, "min_improvement": -1.0}
    tt.promote_best(again(folder))
    study = again(folder, **again_with)
    assert tt.promote_best(study, run="same").promoted  # the same model: no slice is worse
    worse = study_at(folder.parent / "two", "next", store=str(folder / "studies"), start=[{"x": 0.6}], **again_with)
    model = tt.promote_best(worse)
    assert not model.promoted
    assert "slices: 2 of 2 slices are too much worse: kind=" in model.reason
    assert "(20 examples)" in model.reason


def test_models_that_were_measured_on_other_data_are_not_compared(folder: Path) -> None:
    study = again(folder, evaluate="objective:more_examples")
    with pytest.raises(ConfigError, match=r"not the same data: trial-1-5 and trial-0-2 .seed 0. have"):
        tt.promote_best(study)


def test_a_metric_that_evaluate_does_not_return_is_named(folder: Path) -> None:
    study = again(folder, metric="eror")
    with pytest.raises(ConfigError, match=r"promotion\.metric: 'eror'.* returned error; .*Did you mean 'error'"):
        tt.promote_best(study)
    assert told(study, Promoting) == []


@pytest.mark.parametrize("rule", ["keep", "replace"])
def test_a_champion_whose_files_are_gone_stays_or_is_replaced_as_the_spec_says(folder: Path, rule: str) -> None:
    study = again(folder, broken_champion=rule)
    first = tt.promote_best(study)
    shutil.rmtree(str(first.path))
    model = tt.promote_best(study, run="tuesday")
    assert model.promoted is (rule == "replace")
    assert "the champion (version 1) could not be measured" in model.reason
    assert f"promotion.broken_champion: {rule}" in model.reason
    assert "is missing" in model.reason
    [broken] = [event for event in told(study, Evaluated) if event.error]
    assert broken.model == "version-1"


def test_a_champion_with_another_byte_is_not_measured(folder: Path) -> None:
    study = again(folder)
    first = tt.promote_best(study)
    model = Path(str(first.path))
    whole = (model / "data" / "weight.json").read_text()
    (model / "data" / "weight.json").write_text("{}")
    assert "weight.json: has 2 bytes with digest" in tt.promote_best(study, run="tuesday").reason
    (model / "data" / "weight.json").write_text(whole)
    (model / "manifest.json").write_text((model / "manifest.json").read_text().replace("weight", "height"))
    assert "manifest.json: has digest" in tt.promote_best(study, run="wednesday").reason


def test_a_champion_whose_study_was_cleared_away_is_measured_as_the_registry_has_it(folder: Path) -> None:
    study = again(folder, registry=new_database(folder))
    first = tt.promote_best(study)
    shutil.rmtree(str(first.path))
    model = tt.promote_best(study, run="tuesday")
    assert "is the same as the champion's" in model.reason
    [artifact] = folder.glob("mlartifacts/models/*/artifacts/artifacts/checkpoint/weight.json")
    artifact.write_text('{"weight": 0.1, "step": 9}')
    model = tt.promote_best(study, run="wednesday")
    assert "of version 1 is something else" in model.reason
    shutil.rmtree(artifact.parents[2])
    assert "are gone" in tt.promote_best(study, run="thursday").reason


def test_a_champion_that_someone_else_registered_is_asked_too_and_stays_where_it_does_not_load(folder: Path) -> None:
    from mlflow import MlflowClient

    uri = new_database(folder)
    client = MlflowClient(uri)
    client.create_registered_model("small")
    client.create_model_version("small", str(folder / "nowhere"))
    client.set_registered_model_alias("small", "champion", "1")
    study = again(folder, registry=uri)
    model = tt.promote_best(study)
    assert not model.promoted
    assert "the champion (version 1) could not be measured, and stays" in model.reason
    study = again(folder, registry=uri, broken_champion="replace", min_improvement=0.5)
    assert tt.promote_best(study, run="tuesday").version == "2"


def test_values_of_examples_that_are_gone_or_changed_decide_nothing(folder: Path) -> None:
    study = again(folder, repeats=2, evaluate="objective:killed_at_third")
    with pytest.raises(KeyboardInterrupt):
        tt.promote_best(study)
    [first, *_] = [Path(study.url) / str(event.place) for event in told(study, Evaluated)]
    first.write_text(first.read_text().replace("0.", "1.", 1))
    with pytest.raises(CorruptLog, match=r"evaluations/.*has SHA-256"):
        tt.promote_best(study)


def test_a_pickled_model_is_not_even_measured(folder: Path) -> None:
    with (folder / "objective.py").open("a") as file:
        file.write("\n\ndef train(config, _train=train):\n    import pickle\n    folder = tt.get_context().folder\n")
        file.write("    (folder / 'model.bin').write_bytes(pickle.dumps(Path('x')))\n    _train(config)\n")
    study = tt.tune(study_with_pickles(folder))
    with pytest.raises(ConfigError, match=r"promotion\.pickle: model\.bin of the model is pickled"):
        tt.promote_best(study)
    assert told(study, Evaluated) == []


def study_with_pickles(folder: Path) -> tt.Study:
    return tt.open_study(tt.load_spec(folder / "study.yaml", {"name": "pickles"}))


def git(folder: Path, *words: str) -> str:
    name = ("-c", "user.name=a", "-c", "user.email=a@b.example")
    done = subprocess.run(["git", "-C", str(folder), *name, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_model_says_which_code_and_packages_it_was_trained_with(tmp_path: Path) -> None:
    spec = write_study(tmp_path / "plain", name="plain", budget={"trials": 1})
    assert tt.open_study(spec).state.code is None
    spec = write_study(tmp_path / "code", budget={"trials": 1})
    (tmp_path / "code" / "objective.py").write_text(
        (tmp_path / "code" / "objective.py").read_text() + "\ndef unused():\n    import numpy\n"
    )
    git(tmp_path / "code", "init")
    git(tmp_path / "code", "add", "objective.py")
    git(tmp_path / "code", "commit", "-m", "first")
    commit = git(tmp_path / "code", "rev-parse", "HEAD")
    model = tt.promote_best(tt.tune(spec))
    assert model.code == commit
    assert model.environment["packages"]["numpy"] == version("numpy")
    assert {"python", "platform"} <= set(model.environment)
    (tmp_path / "code" / "objective.py").write_text("# changed\n" + (tmp_path / "code" / "objective.py").read_text())
    changed = tt.load_spec(spec, {"name": "changed"})
    assert tt.open_study(changed).state.code == f"{commit}-dirty"
