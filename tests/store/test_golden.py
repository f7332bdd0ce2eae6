"""A log of every released format is read for ever, and tells the state that it told when it was written.

To write the log of the present format anew (only before its first release):
TUNE_TASKS_WRITE_GOLDEN=1 python -m pytest tests/store/test_golden.py
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random
from typing import Any, get_args

import orjson
import pytest

from tests.store.happenings import Happenings, created, told
from tune_tasks.events import FORMAT, Event
from tune_tasks.store import StudyLog, open_objects, publish, snapshot
from tune_tasks.store.aside import AtOnce
from tune_tasks.study import StudyState

GOLDEN = Path(__file__).parents[1] / "golden"
FORMATS = sorted(path.name for path in GOLDEN.glob("format-*"))

SEED = 6
"""Of the story in the newest golden log; one in which everything happens that can."""


def plain(state: StudyState) -> Any:
    """A state as it is after JSON."""
    return orjson.loads(orjson.dumps(told(state), default=lambda value: value.model_dump(mode="json")))


def expected(folder: Path) -> Any:
    return orjson.loads((folder / "state.json").read_bytes())


@pytest.mark.skipif("TUNE_TASKS_WRITE_GOLDEN" not in os.environ, reason="written once, before a format is released")
def test_write_the_golden_log_of_the_present_format():
    folder = GOLDEN / f"format-{FORMAT}"
    shutil.rmtree(folder, ignore_errors=True)
    objects = open_objects(str(folder))
    log, happenings = StudyLog(objects, aside=AtOnce()), Happenings(Random(SEED))
    assert log.create(created())
    for count in range(20):
        events = happenings.happen(10)
        assert log.commit(events, role="step", epoch=0)
        if count == 14:
            log.snapshot(happenings.state)
    (folder / "weights.txt").write_text("one, two, three")
    reference = publish(objects, folder / "weights.txt", "ckpt/000000/1/1")
    (folder / "weights.txt").unlink()
    (folder / "checkpoint.json").write_text(reference.model_dump_json())
    (folder / "state.json").write_bytes(orjson.dumps(plain(log.load()), option=orjson.OPT_INDENT_2))


@pytest.mark.parametrize("name", FORMATS)
def test_a_golden_log_tells_its_state(name: str):
    """Where only this fails for the present format, the fold changed: raise `snapshot.FOLD`, and write it anew."""
    log = StudyLog(open_objects(str(GOLDEN / name)))
    events = [event for segment in log.segments() for event in segment.events]
    state = StudyState()
    for event in events:
        state.apply(event)
    assert plain(state) == expected(GOLDEN / name)


@pytest.mark.parametrize("name", FORMATS)
def test_a_golden_study_opens(name: str):
    assert plain(StudyLog(open_objects(str(GOLDEN / name))).load()) == expected(GOLDEN / name)


def test_the_golden_snapshot_of_the_present_format_is_used(caplog: pytest.LogCaptureFixture):
    objects = open_objects(str(GOLDEN / f"format-{FORMAT}"))
    (key,) = objects.list("snap/")
    _, at = snapshot.decode(objects.read(key) or b"")
    assert at.number == 16
    StudyLog(objects).load()
    assert caplog.records == []


@pytest.mark.parametrize("name", FORMATS)
def test_a_golden_checkpoint_is_fetched(name: str, tmp_path: Path):
    from tune_tasks.events import CheckpointRef
    from tune_tasks.store import fetch

    reference = CheckpointRef.model_validate_json((GOLDEN / name / "checkpoint.json").read_bytes())
    folder = fetch(open_objects(str(GOLDEN / name)), reference, tmp_path / "restored")
    assert (folder / "weights.txt").read_text() == "one, two, three"


def test_everything_that_can_happen_is_in_the_golden_log_of_the_present_format():
    log = StudyLog(open_objects(str(GOLDEN / f"format-{FORMAT}")))
    events = [event for segment in log.segments() for event in segment.events]
    assert {event.type for event in events} == {kind.model_fields["type"].default for kind in get_args(Event)}
    assert any(advance.donor is not None for event in events if event.type == "judged" for advance in event.advances)


def test_a_changed_fold_is_noticed(monkeypatch: pytest.MonkeyPatch):
    apply = StudyState.apply

    def changed(self: StudyState, event: Any) -> None:
        apply(self, event)
        self.reason += "."

    monkeypatch.setattr(StudyState, "apply", changed)
    with pytest.raises(AssertionError):
        test_a_golden_log_tells_its_state(f"format-{FORMAT}")
