"""The spec: what it reads, its defaults, and the one message for each mistake."""

from __future__ import annotations

import json
import sys

import pytest

from tune_tasks import plugins
from tune_tasks.errors import ConfigError
from tune_tasks.spec import StudySpec, check_name, differences, load_spec
from tune_tasks.testing.histories import study_spec

GOOD = {
    "name": "digits-mlp",
    "objective": "objective:train",
    "metric": "val_loss",
    "mode": "min",
    "space": {"rate": {"type": "float", "low": 1e-5, "high": 0.1, "log": True}},
}
YAML = """
name: digits-mlp
store: ./studies
objective: objective:train
metric: val_loss
mode: min
space:
  learning_rate: {type: float, low: 1e-5, high: 1.0e-1, log: true}
  hidden: {type: int, low: 16, high: 256, log: true}
  tolerance: 1e-4
sampler: {name: tpe, seed: 7}
scheduler: {name: asha, min_budget: 1, max_budget: 27, reduction_factor: 3}
budget: {trials: 64, concurrency: 2, wall_time: 10m}
"""


def build(changes):
    """Everything that is checked before a study is created."""
    spec = StudySpec(**{**GOOD, **changes})
    plugins.sampler(spec)
    plugins.scheduler(spec)


def refused(**changes):
    """The message for a spec with these changes."""
    with pytest.raises(ConfigError) as error:
        build(changes)
    assert error.value.exit_code == 2
    return str(error.value)


def ranged(**options):
    return {"space": {"rate": {"type": "float", "low": 0.1, "high": 1.0, **options}}}


CHOICES = {"type": "categorical", "choices": ["relu", "tanh", "relu"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samplr": "tpe"}, "samplr: 'samplr' is not allowed; unknown key; allowed are name, store, objective"),
        ({"samplr": "tpe"}, "Did you mean 'sampler'?"),
        ({"budget": {"trails": 3}}, "budget.trails: 'trails' is not allowed; unknown key; allowed are trials,"),
        ({"budget": {"trails": 3}}, "Did you mean 'trials'?"),
        ({"space": {"rate": {"type": "float", "lo": 0, "high": 1}}}, "space.rate.lo: 'lo' is not allowed"),
        ({"space": {"rate": {"type": "float", "lo": 0, "high": 1}}}, "Did you mean 'low'?"),
        ({"space": {"net": {"rate": {"type": "float", "low": 0, "hi": 1}}}}, "space.net.rate.hi: 'hi' is not allowed"),
        ({"space": {"rate": {"type": "flot", "low": 0}}}, "space.rate.type: 'flot' is not allowed; allowed are float,"),
        ({"space": {"rate": {"type": "flot", "low": 0}}}, "Did you mean 'float'?"),
        ({"sampler": "tpee"}, "sampler.name: 'tpee' is not allowed; there are grid, random, sobol, tpe"),
        ({"sampler": "tpee"}, "Did you mean 'tpe'?"),
        ({"sampler": {"name": "tpe", "sed": 7}}, "sampler.sed: 'sed' is not allowed; unknown key; allowed are seed,"),
        ({"sampler": {"name": "tpe", "sed": 7}}, "Did you mean 'seed'?"),
        ({"sampler": {"name": "random", "seed": -3}}, "sampler.seed: -3 is not allowed; input should be greater"),
        ({"scheduler": {"name": "ashaa"}}, "scheduler.name: 'ashaa' is not allowed; there are asha, hyperband,"),
        ({"scheduler": {"name": "ashaa"}}, "Did you mean 'asha'?"),
        ({"scheduler": {"name": "asha"}}, "scheduler.max_budget: missing; it must be given"),
        (ranged(high=0.1), "space.rate: the range [0.1, 0.1] is empty; low must be below high"),
        (ranged(high=0.05), "space.rate: the range [0.1, 0.05] is inverted; low must be below high"),
        (ranged(low=0, log=True), "space.rate: a log range must lie above zero, and low is 0.0"),
        (ranged(low=-1, log=True), "space.rate: a log range must lie above zero, and low is -1.0"),
        (ranged(low="a"), "space.rate.low: 'a' is not allowed; input should be a valid number"),
        (ranged(low=float("nan")), "space.rate.low: nan is not allowed; input should be a finite number"),
        ({"space": {"act": CHOICES}}, "space.act: choice 'relu' is there twice; every choice must be different"),
        ({"space": {"act": {"type": "categorical", "choices": []}}}, "space.act: choices is empty"),
        ({"space": {"rate": 0.1}}, "space: has no parameter to search"),
        ({"space": {}}, "space: has no parameter to search"),
        ({"space": [1]}, "space: must be a mapping from names to parameters"),
        ({"mode": "minimize"}, "mode: 'minimize' is not allowed; allowed are 'min' or 'max'. Did you mean 'min'?"),
        ({"metric": ""}, "metric: '' is not allowed"),
        ({"metric": None}, "metric: None is not allowed; input should be a valid string"),
        ({"objective": "train"}, "objective: 'train' is not an import string; write module:name"),
        ({"objective": "a/b:train"}, "objective: 'a/b:train' is not an import string"),
        ({"budget": {"trials": 0}}, "budget.trials: 0 is not allowed; input should be greater than or equal to 1"),
        (
            {"budget": {"wall_time": "10 minutes"}},
            "budget.wall_time: '10 minutes' is not a duration; write seconds, or",
        ),
        ({"budget": 3}, "budget: 3 is not allowed"),
        ({"resources": {"gpu": -1}}, "resources.gpu: -1 is not allowed"),
        ({"retry": {"failure": 1}}, "retry.failure: 'failure' is not allowed; unknown key; allowed are failures,"),
        (
            {"execution": {"runner": "rayy"}},
            "execution.runner: 'rayy' is not allowed; allowed are 'ray', 'job' or 'inline'",
        ),
        (
            {"execution": {"notice": "awss"}},
            "execution.notice: 'awss' is not allowed; allowed are auto, aws, aws-rebalance, google, none, or an",
        ),
        ({"execution": {"address": "http://h:8265"}}, "is that of a dashboard, which takes jobs; add runner: job"),
        ({"resources": {"gpu": 1.5}}, "gpu is 1.5, must be at most 1 or a whole number"),
        ({"resources": {"memory": "4 bananas"}}, "resources.memory: '4 bananas' is not a size"),
        ({"environment": {"pip": ["a"], "uv": ["b"]}}, "environment: pip and uv are both given"),
        ({"environment": {"image": "a:1", "uv": ["b"]}}, "environment: image and uv are both given; Ray runs an image"),
        ({"promotion": {"loader": "abc"}}, "promotion.loader: 'abc' is not an import string"),
    ],
)
def test_a_mistake_is_told_by_path_value_and_what_is_allowed(changes, message):
    assert message in refused(**changes)


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "a\0b", "", ".hidden", "-flag", "a b", "a\n", "x" * 129, "ä"])
def test_a_name_that_could_leave_its_folder_is_refused(name):
    assert refused(name=name).startswith(f"name: {name!r} is not a name; use 1 to 128 letters")
    with pytest.raises(ValueError, match="is not a name"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "digits-mlp", "A.b_c-9", "_x", "x" * 128])
def test_ordinary_names_are_names(name):
    assert check_name(name) == name


def test_all_mistakes_are_told_at_once():
    lines = refused(mode="least", metric="", budget={"trials": -1}).splitlines()
    assert [line.split(":")[0] for line in lines] == ["metric", "mode", "budget.trials"]


def test_what_is_missing_is_named():
    with pytest.raises(ConfigError) as error:
        StudySpec(name="a")
    assert str(error.value).splitlines() == [
        "objective: missing; it must be given, or a command in its place",
        *(f"{path}: missing; it must be given" for path in ("metric", "mode", "space")),
    ]


def test_five_keys_are_enough():
    spec = StudySpec(**GOOD)
    assert (spec.store, spec.sampler.name, spec.scheduler.name, spec.budget.trials) == ("./studies", "tpe", "none", 64)


@pytest.mark.parametrize(
    ("text", "seconds"), [(90, 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("1.5h", 5400)]
)
def test_durations_are_seconds_or_have_units(text, seconds):
    assert StudySpec(**GOOD, budget={"wall_time": text}).budget.wall_time == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "-5s", "5s 3m", "10x", 0, -1, float("inf")])
def test_what_is_no_duration_is_refused(text):
    assert refused(budget={"wall_time": text}).startswith("budget.wall_time: ")


def written(folder, text, name="study.yaml"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_yaml_file_is_read_with_its_folder(tmp_path):
    spec = load_spec(written(tmp_path, YAML))
    assert spec.space["learning_rate"].low == 1e-5
    assert spec.space["tolerance"].value == 1e-4, "YAML 1.1 takes 1e-4 for text"
    assert spec.sampler.options == {"seed": 7}
    assert spec.budget.wall_time == 600
    assert spec.folder == tmp_path


def test_yaml_json_and_python_give_the_same_spec(tmp_path):
    path = written(tmp_path, json.dumps(GOOD), "study.json")
    assert load_spec(path).record() == load_spec(GOOD).record() == StudySpec(**GOOD).record()


def test_a_spec_is_the_same_after_a_round_through_the_log():
    spec = StudySpec(**GOOD, sampler={"name": "random", "seed": 3}, budget={"wall_time": "1h"})
    again = StudySpec(**json.loads(json.dumps(spec.record())))
    assert again == spec
    assert "store" not in spec.record()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2", "is not YAML: "),
        ("a\tb: {", "is not YAML: "),
        ("just text", "holds str, must be a mapping with the keys of a spec"),
        ("- 1", "holds list, must be a mapping"),
        ("", "holds NoneType, must be a mapping"),
        (b"\xff\xfe\x00\x01", "is not a YAML or JSON file: it is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_spec_is_named(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_spec(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        load_spec(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_spec(tmp_path)


def test_dotted_overrides_replace_what_the_file_says(tmp_path):
    path = written(tmp_path, YAML)
    spec = load_spec(path, {"budget.trials": 5, "sampler.seed": 9, "execution.runner": "inline", "mode": "max"})
    assert (spec.budget.trials, spec.budget.concurrency, spec.sampler.options) == (5, 2, {"seed": 9})
    assert (spec.execution.runner, spec.mode) == ("inline", "max")


def test_an_override_leaves_the_mapping_that_was_given_alone():
    given = {**GOOD, "budget": {"trials": 3}}
    load_spec(given, {"budget.trials": 5})
    assert given["budget"] == {"trials": 3}


def test_an_option_of_a_plug_in_that_is_only_a_name_can_be_overridden():
    spec = load_spec({**GOOD, "sampler": "random"}, {"sampler.seed": 4})
    assert (spec.sampler.name, spec.sampler.options) == ("random", {"seed": 4})


@pytest.mark.parametrize("dotted", ["budgett.trials", "budget.trails", "space.rate.lo"])
def test_an_override_of_an_unknown_key_is_refused_by_its_path(dotted):
    with pytest.raises(ConfigError, match=dotted.split(".")[0]):
        load_spec(GOOD, {dotted: 5})


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "the_objective.py").write_text("def train(config): return 1\nnumber = 3\n")
    yield tmp_path
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]
    sys.modules.pop("the_objective", None)


def objective(name, folder):
    return StudySpec(**{**GOOD, "objective": name}).resolve_objective(folder)


def test_an_objective_is_imported_from_the_folder_of_its_spec(folder):
    assert objective("the_objective:train", folder)({}) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("the_objectiv:train", "objective: 'the_objectiv:train' cannot be imported: ModuleNotFoundError"),
        (
            "the_objective:trane",
            "objective: 'the_objective:trane' is not allowed; module 'the_objective' has no such name",
        ),
        ("the_objective:trane", "Did you mean 'the_objective:train'?"),
        ("the_objective:number", "objective: 'the_objective:number' is a int; it must be a function or a class"),
    ],
)
def test_an_objective_that_cannot_be_imported_is_named(folder, name, message):
    with pytest.raises(ConfigError) as error:
        objective(name, folder)
    assert message in str(error.value)


def test_a_module_that_breaks_says_what_broke(folder):
    (folder / "the_objective.py").write_text("import a_missing_module\n")
    with pytest.raises(
        ConfigError, match="cannot be imported: ModuleNotFoundError: No module named 'a_missing_module'"
    ):
        objective("the_objective:train", folder)


def test_a_python_function_is_its_own_objective():
    def train(config):
        return config

    spec = StudySpec(**{**GOOD, "objective": train})
    assert spec.resolve_objective() is train
    assert spec.target is train


def test_inputs_are_loaded_by_functions_or_by_what_import_strings_name():
    def load():
        return 1

    spec = StudySpec(**{**GOOD, "inputs": {"table": load, "words": "data:words"}})
    assert spec.loaders == {"table": load, "words": "data:words"}
    assert spec.record()["inputs"]["words"] == "data:words"
    assert StudySpec(**spec.record()).loaders == spec.record()["inputs"], "as the log has it"


@pytest.mark.parametrize("name", ["config", "a b", "1st"])
def test_an_input_has_the_name_of_an_argument(name):
    assert f"{name!r} cannot be the name of an argument" in refused(inputs={name: "data:load"})


def test_a_command_takes_no_inputs():
    command = {"objective": None, "command": "python train.py {rate}", "inputs": {"table": "data:load"}}
    assert "a command has no keyword arguments" in refused(**command)


def test_two_specs_that_differ_say_where_and_how():
    before = StudySpec(**GOOD, budget={"trials": 10}, sampler="random").record()
    after = StudySpec(**{**GOOD, "mode": "max"}, budget={"trials": 20}, sampler={"name": "random", "seed": 3}).record()
    assert differences(before, after) == [
        "budget.trials is 20 here and 10 in the study",
        "mode is 'max' here and 'min' in the study",
        "sampler.seed is 3 here and None in the study",
    ]


def test_a_changed_parameter_is_named():
    wider = {"rate": {**GOOD["space"]["rate"], "high": 1.0}, "new": {"type": "int", "low": 1, "high": 2}}
    lines = differences(StudySpec(**GOOD).record(), StudySpec(**{**GOOD, "space": wider}).record())
    assert lines[0].startswith("space.new is {")
    assert lines[1] == "space.rate.high is 1.0 here and 0.1 in the study"


def test_the_store_is_no_difference():
    before, after = StudySpec(**GOOD, store="a").record(), StudySpec(**GOOD, store="b").record()
    assert differences(before, after) == []


def test_the_helper_of_the_suites_is_a_good_spec():
    assert study_spec(GOOD["space"]).space["rate"].log


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="rate"):
        load_spec(
            written(tmp_path, YAML.replace("  hidden:", "  learning_rate: {type: int, low: 1, high: 2}\n  hidden:"))
        )


def test_an_override_below_a_plain_value_is_refused():
    with pytest.raises(ConfigError):
        load_spec({**GOOD, "budget": 3}, {"budget.trials": 5})


def test_an_unknown_parent_of_a_condition_is_told_with_the_nearest_name():
    space = {"model": {"type": "grid", "choices": ["a"]}, "x": {**GOOD["space"]["rate"], "when": {"modell": "a"}}}
    assert "Did you mean 'model'?" in refused(space=space)


def test_empty_choices_are_told_in_plain_words():
    assert "tuple" not in refused(space={"act": {"type": "categorical", "choices": []}})


def test_a_plug_in_as_a_whole_is_told_by_its_kind(monkeypatch):
    monkeypatch.setattr("tune_tasks.samplers.sobol.find_spec", lambda _: None)
    assert refused(sampler="sobol").startswith("sampler: the sampler 'sobol' needs the package scipy")
