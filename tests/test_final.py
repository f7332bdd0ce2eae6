"""The winner is trained again as a study of its own: all the data, as many steps, several seeds, one model of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tune_tasks as tt
from tests.studies import OBJECTIVE, events, write_study
from tune_tasks.errors import ConfigError, NothingToPromote
from tune_tasks.final import study_to_promote
from tune_tasks.registry import candidate
from tune_tasks.store import checkpoints

MORE = """

def final(config):
    context = tt.get_context()
    assert context.final and context.data == "week 2"
    (context.folder / "weight.json").write_text(json.dumps({"weight": config["x"] + 0.01 * config.get("seed", 0)}))
    for step in range(context.max_budget):
        tt.report({"loss": 0.5 - 0.1 * step + config.get("seed", 0), "steps": step + 1}, checkpoint=context.folder)


def load_members(folder):
    return [load(member) for member in sorted(Path(folder).iterdir())]


def evaluate_members(folder):
    weights = [member.weight for member in load_members(folder)]
    return {"loss": (sum(weights) / len(weights) - 0.7) ** 2, "members": len(weights)}
"""


def finished(folder: Path, **changes: Any) -> tt.Study:
    path = write_study(folder, **{"data": "week 2", **changes})
    (folder / "objective.py").write_text(OBJECTIVE + MORE, encoding="utf-8")
    return tt.tune(path)


def test_the_winner_is_trained_again_as_far_as_its_model_was(tmp_path: Path) -> None:
    study = finished(tmp_path)
    best = candidate(study.state)
    final = tt.train_final(study)
    (trial,) = final.trials
    assert final.url == f"{study.url}-final"
    assert final.state.parent == study.url
    assert trial.params == study.trials[best.trial].params
    assert trial.budget == best.step
    assert trial.reason == f"the winner, trial {best.trial} of small: loss {best.value:.4g}"
    assert final.state.done
    assert study.refresh().parent is None


def test_its_objective_knows_that_it_is_the_final_one_and_on_what_data(tmp_path: Path) -> None:
    study = finished(tmp_path, final={"objective": "objective:final", "budget": 4})
    final = tt.train_final(study)
    assert [report.metrics["steps"] for report in final.trials[0].reports] == [1, 2, 3, 4]
    assert final.trials[0].state == "completed"


def test_what_is_promoted_is_the_final_training_where_there_is_one_and_it_has_none_of_its_own(tmp_path: Path) -> None:
    plain = finished(tmp_path / "plain")
    assert study_to_promote(plain) is plain
    study = finished(tmp_path / "asked", final={"objective": "objective:final", "budget": 2})
    final = study_to_promote(study)
    assert final.url == f"{study.url}-final"
    assert study_to_promote(final) is final


@pytest.mark.ray
def test_on_ray_the_worker_knows_it_too(tmp_path: Path) -> None:
    study = finished(tmp_path, final={"objective": "objective:final", "budget": 2, "seeds": 2})
    recorded = {**study.spec.execution.model_dump(), "runner": "ray"}
    tt.extend(study, changes={"execution": recorded})
    final = tt.train_final(study)
    assert [(trial.state, trial.budget) for trial in final.trials] == [("completed", 2)] * 2
    assert {event.node for event in events(final.url) if event.type == "started"} - {""}, "it did not run on Ray"


def test_a_trial_of_the_search_knows_that_it_is_not_final(tmp_path: Path) -> None:
    study = finished(tmp_path, objective="objective:final", budget={"trials": 1}, retry={"failures": 0})
    assert study.trials[0].state == "failed"
    assert "AssertionError" in (study.trials[0].error or "")


def test_what_was_decided_to_be_promoted_is_the_winner_whatever_came_after(tmp_path: Path) -> None:
    study = finished(tmp_path, space={"x": {"type": "float", "low": 0.0, "high": 0.5}})
    model = tt.promote_best(study)
    tt.tune(tt.extend(study, trials=18, space={"x": {"high": 1}}))
    assert candidate(study.state).trial != model.trial
    final = tt.train_final(study)
    assert final.trials[0].params == model.params


def test_a_second_call_goes_on_with_the_same_and_another_run_has_the_new_winner(tmp_path: Path) -> None:
    study = finished(tmp_path, space={"x": {"type": "float", "low": 0.0, "high": 0.5}})
    final = tt.train_final(study)
    tt.tune(tt.extend(study, trials=18, space={"x": {"high": 1}}))
    again = tt.train_final(study.url)
    assert (again.url, again.log.head) == (final.url, final.log.head)
    later = tt.train_final(study, run="later")
    assert later.url == f"{study.url}-final-later"
    assert later.trials[0].params != final.trials[0].params


def test_each_seed_is_a_trial_and_the_best_is_promoted_by_the_same_gate(tmp_path: Path) -> None:
    study = finished(tmp_path, final={"seeds": 3, "objective": "objective:final", "budget": 2})
    tt.promote_best(study)
    final = tt.train_final(study)
    assert [trial.params["seed"] for trial in final.trials] == [0, 1, 2]
    model = tt.promote_best(final)
    assert (model.name, model.promoted) == ("small", False)
    assert "loss 0.4 does not beat the champion's" in model.reason


def test_an_ensemble_is_one_model_with_a_folder_for_each_seed(tmp_path: Path) -> None:
    options = {"final": {"seeds": 3, "ensemble": True, "objective": "objective:final", "budget": 2}}
    evaluated = {"registry": "none", "loader": "objective:load_members", "evaluate": "objective:evaluate_members"}
    study = finished(tmp_path, **options, promotion=evaluated)
    final = tt.train_final(study)
    assert len(final.trials) == 4
    assert final.trials[3].reason == "the ensemble of 3 of 3 trainings; its value is their mean"
    assert final.trials[3].value == pytest.approx(1.4)
    assert [saved.trial for saved in final.state.saved()] == [3], "a member could be promoted in the ensemble's place"
    head = final.log.head
    assert tt.train_final(study).log.head == head
    model = tt.promote_best(final)
    assert model.promoted
    assert model.trial == 3
    assert model.evaluation["members"] == 3
    folder = checkpoints.fetch(final.objects, final.trials[3].checkpoints[0][1], tmp_path / "model")
    weights = [json.loads((member / "weight.json").read_text())["weight"] for member in sorted(folder.iterdir())]
    assert sorted(member.name for member in folder.iterdir()) == ["member-0", "member-1", "member-2"]
    assert weights == pytest.approx([final.trials[3].params["x"] + 0.01 * seed for seed in range(3)])


def test_a_parameter_called_seed_is_not_overwritten(tmp_path: Path) -> None:
    space = {"x": {"type": "float", "low": 0, "high": 1}, "seed": {"type": "int", "low": 5, "high": 9}}
    study = finished(tmp_path, space=space, final={"seeds": 2})
    with pytest.raises(ConfigError, match=r"final.seeds: 2 is not allowed; the space has a parameter 'seed'"):
        tt.train_final(study)


def test_a_study_without_a_value_has_no_winner(tmp_path: Path) -> None:
    study = tt.open_study(write_study(tmp_path))
    with pytest.raises(NothingToPromote):
        tt.train_final(study)
    assert not (tmp_path / "studies" / "small-final").exists()


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run: 'small-final-a/b' is not a name"):
        tt.train_final(finished(tmp_path), run="a/b")


def test_python_objects_of_the_study_are_trained_with_too(tmp_path: Path) -> None:
    seen: list[tuple[bool, Any]] = []

    def train(config: dict[str, Any], table: str) -> dict[str, float]:
        seen.append((tt.get_context().final, table))
        return {"loss": config["x"]}

    spec = tt.StudySpec(
        name="local", store=str(tmp_path), objective=train, metric="loss", mode="min",
        space={"x": {"type": "float", "low": 0, "high": 1}}, budget={"trials": 2}, execution={"runner": "inline"},
        inputs={"table": lambda: "loaded"}, promotion={"registry": "none"},
    )  # fmt: skip
    study = tt.tune(spec)
    tt.train_final(study)
    tt.train_final(study)
    assert seen == [(False, "loaded")] * 2 + [(True, "loaded")]


def test_its_lineage_is_in_the_log(tmp_path: Path) -> None:
    study = finished(tmp_path)
    created = events(tt.train_final(study).url)[0]
    assert created.type == "created"
    assert created.parent == study.url
    assert created.spec["final"]["of"] == "small"
