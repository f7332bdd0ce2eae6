"""The command line: JSON on stdout, people on stderr, an exit code for each class of error, bad input refused whole."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.studies import COMMAND, SPEC, write_study
from tune_tasks.studies import open_study


def tune_tasks(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=120, check=False
    )


def answer(*arguments: object, cwd: Path | None = None) -> dict[str, Any]:
    done = tune_tasks(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


def test_the_four_tasks_from_a_shell(tmp_path: Path) -> None:
    spec, url = write_study(tmp_path, budget={"trials": 3}), str(tmp_path / "studies" / "small")
    batch = answer("sample", spec)
    assert batch["study"] == url
    assert answer("launch-trials", url, "--batch", batch["batch"])["states"] == {"paused": 3}
    assert answer("evaluate-and-prune", url, "--batch", batch["batch"])["advances"]
    assert answer("promote-best", url)["promoted"] is True


def test_status_report_and_logs_of_a_study(tmp_path: Path) -> None:
    spec, url = write_study(tmp_path, budget={"trials": 3}), str(tmp_path / "studies" / "small")
    done = tune_tasks("run", spec)
    assert done.returncode == 0, done.stderr
    status = answer("status", url)
    assert status["done"] is True
    assert sum(status["trials"].values()) == 3
    assert "rank" in tune_tasks("report", url, "--format", "markdown").stdout
    assert "trial 1 step 1" in tune_tasks("logs", url, "1").stdout
    assert "trials 0 to 2" in tune_tasks("logs", url, "7").stderr


def test_the_schema_names_every_key_and_plug_in() -> None:
    schema = answer("schema")
    assert {"name", "metric", "mode", "space"} == set(schema["required"])
    assert schema["oneOf"] == [{"required": ["objective"]}, {"required": ["command"]}]
    names = [option["title"] for option in schema["properties"]["scheduler"]["anyOf"][1:]]
    assert {"none", "asha", "hyperband"} <= set(names)


SPACE = SPEC["space"]
BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an unknown key": ({"bugdet": {}}, ["bugdet", "unknown key", "'budget'"]),
    "an unknown nested key": ({"budget": {"trails": 3}}, ["budget.trails", "trials"]),
    "an unknown sampler": ({"sampler": "tpp"}, ["sampler.name", "'tpp'", "'tpe'", "random"]),
    "an unknown scheduler": ({"scheduler": {"name": "ahsa"}}, ["scheduler.name", "'ahsa'", "'asha'"]),
    "an unknown option of a sampler": ({"sampler": {"name": "random", "sede": 1}}, ["sampler.sede", "'seed'"]),
    "an empty range": ({"space": {"x": {"type": "float", "low": 1, "high": 1}}}, ["space.x", "empty"]),
    "an inverted range": ({"space": {"x": {"type": "int", "low": 3, "high": 1}}}, ["space.x", "inverted"]),
    "a log range through zero": (
        {"space": {"x": {"type": "float", "low": 0, "high": 1, "log": True}}},
        ["space.x", "log", "above zero"],
    ),
    "duplicate choices": (
        {"space": {"x": {"type": "categorical", "choices": ["a", "a"]}}},
        ["space.x", "'a'", "twice"],
    ),
    "an objective that cannot be imported": ({"objective": "objectiv:train"}, ["objective", "'objectiv:train'"]),
    "an objective without that name": ({"objective": "objective:trian"}, ["objective", "'objective:train'"]),
    "a name with dots": ({"name": "../up"}, ["name", "'../up'"]),
    "a name with NUL": ({"name": "a\0b"}, ["name"]),
    "a rung above the budget": (
        {"scheduler": {"name": "asha", "min_budget": 30, "max_budget": 9}},
        ["scheduler", "30", "9"],
    ),
    "a reduction factor of one": (
        {"scheduler": {"name": "asha", "max_budget": 9, "reduction_factor": 1}},
        ["scheduler.reduction_factor", "1", "2"],
    ),
    "a store of an unknown kind": ({"store": "nosuch://bucket/x"}, ["store", "nosuch"]),
}


@pytest.mark.parametrize("case", BAD, ids=list(BAD))
def test_bad_input_is_refused_with_one_clear_message_and_nothing_created(tmp_path: Path, case: str) -> None:
    changes, expected = BAD[case]
    spec = write_study(tmp_path, **changes)
    before = sorted(tmp_path.rglob("*"))
    done = tune_tasks("sample", spec, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for part in expected:
        assert part in done.stderr
    assert [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in path.parts] == before


def test_a_file_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: [unclosed")
    done = tune_tasks("run", tmp_path / "study.yaml")
    assert done.returncode == 2
    assert "study.yaml: is not YAML" in done.stderr


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = tune_tasks("run", tmp_path / "nowhere.yaml")
    assert done.returncode == 2
    assert "nowhere.yaml: cannot be read" in done.stderr


def test_a_changed_spec_is_refused_and_says_how_it_differs(tmp_path: Path) -> None:
    spec = write_study(tmp_path)
    answer("sample", spec)
    done = tune_tasks("sample", spec, "--set", "budget.trials=20", "--set", "mode=max")
    assert done.returncode == 2
    assert "mode is 'max' here and 'min' in the study" in done.stderr
    done = tune_tasks("sample", spec, "--set", "budget.trials=20")
    assert "budget.trials is 20 here and 9 in the study" in done.stderr
    assert "--amend" in done.stderr
    assert answer("sample", spec, "--set", "budget.trials=20", "--amend")["trials"]
    assert answer("status", tmp_path / "studies" / "small")["budget"]["trials"] == 20


def test_a_study_that_is_not_there_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    done = tune_tasks("status", tmp_path / "nothing")
    assert done.returncode == 3
    assert "there is no study here" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "studies").write_text("a file, not a folder")
    done = tune_tasks("sample", write_study(tmp_path))
    assert done.returncode == 2
    assert "store" in done.stderr


def test_a_number_is_set_as_it_is_written_in_a_spec(tmp_path: Path) -> None:
    spec = write_study(tmp_path)
    answer("sample", spec, "--set", "space.x.low=1e-5")
    assert open_study(str(tmp_path / "studies" / "small")).spec.space["x"].low == 1e-5
    refused = tune_tasks("sample", spec, "--set", "space.x.low=[1")
    assert (refused.returncode, "is not YAML" in refused.stderr) == (2, True)


def test_a_name_that_is_none_is_refused_without_what_else_is_in_the_url() -> None:
    refused = tune_tasks("status", "s3://user:canary-77@..")
    assert refused.returncode == 2
    assert "canary-77" not in refused.stderr
