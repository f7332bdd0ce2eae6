"""What the log names is verified byte for byte, and what nothing names is told apart from it."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from tests.operate.breaking import change, flip, problems
from tune_tasks.events import Discarded
from tune_tasks.operate import check_study
from tune_tasks.operate.manifests import references
from tune_tasks.store import Objects, StudyLog, open_objects, publish
from tune_tasks.store.checkpoints import remove
from tune_tasks.store.segment import segment_key


def test_without_data_nothing_is_read_through(study: Path, objects: Objects) -> None:
    change(objects, next(key for key in objects.list("ckpt/") if "/data/" in key), flip)
    assert (check_study(study, data=False).files, check_study(study, data=False).findings) == (0, ())
    assert not check_study(study).sound


@pytest.mark.parametrize("part", ["ckpt/", "models/"])
def test_what_the_log_names_must_be_there_byte_for_byte(study: Path, part: str) -> None:
    objects = open_objects(str(study))
    manifests = [key for key in objects.list(part) if key.endswith("manifest.json")]
    files = [key for key in objects.list(part) if "/data/" in key]
    change(objects, files[0], flip)
    assert [key for key, _ in problems(check_study(study))] == [files[0]]
    change(objects, files[0], lambda data: data[:-1])
    assert "bytes, the manifest says" in problems(check_study(study))[0][1]
    objects.delete(files[0])
    assert "is missing; the manifest says" in problems(check_study(study))[0][1]
    change(objects, manifests[0], lambda data: data + b" ")
    ((key, problem),) = problems(check_study(study))
    assert (key, "but the log says" in problem) == (manifests[0], True)
    objects.delete(manifests[0])
    assert problems(check_study(study)) == [(manifests[0], "is missing, but the log names it")]


def test_a_model_must_have_its_record(objects: Objects) -> None:
    key = next(key for key in objects.list("models/") if key.endswith("model.json"))
    change(objects, key, lambda data: data.replace(b'"digest": "', b'"digest": "0', 1))
    assert "says that the manifest has SHA-256 0" in problems(check_study(objects))[0][1]
    objects.delete(key)
    assert problems(check_study(objects)) == [(key, "is missing, or no record of a model")]


def test_leftovers_are_notes(study: Path, objects: Objects, tmp_path: Path) -> None:
    (tmp_path / "saved").write_bytes(b"weights")
    orphan = publish(objects, tmp_path / "saved", "ckpt/000001/7/3").key
    unfinished = publish(objects, tmp_path / "saved", "ckpt/000001/7/4").key
    objects.delete(f"{unfinished}/manifest.json")
    probe, unknown = f"probe/{uuid4().hex}", "notes/README.txt"
    for key in (probe, unknown):
        objects.create(key, b"x")
    (study / "log" / ".tmp-1").write_bytes(b"half")
    found = check_study(study)
    assert found.sound
    told = dict(problems(found, "note"))
    assert {*told} == {orphan, unfinished, probe, unknown, "log/.tmp-1"}
    assert "the log does not name" in told[orphan]
    assert "never finished" in told[unfinished]
    assert len(found.findings) == 5


def test_where_the_log_is_broken_a_missing_checkpoint_is_only_a_warning(objects: Objects) -> None:
    for key in objects.list("snap/"):
        objects.delete(key)
    objects.delete("HEAD.json")
    change(objects, segment_key(len(objects.list("log/"))), flip)
    key = next(key for key in objects.list("ckpt/") if key.endswith("manifest.json"))
    objects.delete(key)
    found = check_study(objects)
    assert key in dict(problems(found, "warning"))
    assert [name for name, _ in problems(found)] == [segment_key(len(objects.list("log/")))]


def test_a_checkpoint_that_is_discarded_meanwhile_is_not_missing(study: Path, objects: Objects) -> None:
    log = StudyLog(objects)
    state = log.load()
    trial = next(t for t in state.trials if t.state in {"pruned", "completed"} and t.checkpoints)
    step, reference = trial.checkpoints[0]
    event = Discarded(trial=[trial.number], step=[step], keys=(reference.key,), time=1.0)

    def discard(what: str, done: int, of: int) -> None:
        if what == "checkpoints and models" and objects.list(f"{reference.key}/"):
            assert log.commit([event], role="step", epoch=0)
            remove(objects, [reference.key])

    assert check_study(study, progress=discard).findings == ()
    assert objects.list(f"{reference.key}/") == []


def test_what_is_named_is_what_the_state_says_is_named(objects: Objects) -> None:
    state = StudyLog(objects).load()
    named = references(state)
    assert {key for key in named if key.startswith("ckpt/")} == state.checkpoint_keys()
    assert len(named) == len(state.checkpoint_keys()) + 1
