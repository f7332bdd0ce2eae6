"""The contract of trackers catches what it is for: every check has a broken twin that must make it fail."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tune_tasks.study import StudyState
from tune_tasks.testing.trackers import TrackerContract


class Pages:
    """A folder with a JSON file for each trial that has begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, *_: object) -> str | None:
        return str(self.folder)

    def update(self, state: StudyState, url: str) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        for trial in state.trials:
            if trial.attempts:
                (self.folder / f"{trial.number}.json").write_text(json.dumps([trial.state, *state.curve(trial.number)]))
                yield


class Nowhere(Pages):
    def place(self, *_: object) -> None:
        return None


class Appends(Pages):
    """Writes the line again that is there already."""

    def update(self, state, url):
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "all").open("a") as file:
            file.write(f"{state.count('paused')} {len(state.curve(1))}\n")
        yield


class WritesOnce(Pages):
    """Passes over a trial that it has a page of."""

    def update(self, state, url):
        known = set(self.folder.glob("*.json"))
        for _ in super().update(state, url):
            yield
        for path in known:
            path.write_text("[]")


class NotesFirst(Pages):
    """Notes that all was written before it is."""

    def update(self, state, url):
        note, wanted = (
            self.folder / "note",
            f"{[len(state.curve(t.number)) for t in state.trials]}{state.count('failed')}",
        )
        if note.exists() and note.read_text() == wanted:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        note.write_text(wanted)
        yield
        yield from super().update(state, url)


class LooksOnce(Pages):
    """Names its pages by how many there were when it looked."""

    def update(self, state, url):
        known = {path.read_text() for path in self.folder.glob("*.page")}
        yield
        self.folder.mkdir(parents=True, exist_ok=True)
        for trial in state.trials:
            text = json.dumps([trial.number, trial.state, *state.curve(trial.number)])
            if text not in known:
                (self.folder / f"{len(list(self.folder.iterdir()))}.page").write_text(text)
            yield


class OnlyGrows(Pages):
    """Takes the length of what it wrote for what it wrote."""

    def update(self, state, url):
        self.folder.mkdir(parents=True, exist_ok=True)
        for trial in state.trials:
            page, values = self.folder / f"{trial.number}.json", list(state.curve(trial.number))
            known = json.loads(page.read_text()) if page.exists() else []
            page.write_text(json.dumps(known + values[len(known) :]))
            yield


TWINS = {
    "test_it_has_a_place": Nowhere,
    "test_another_update_changes_nothing": Appends,
    "test_what_is_new_is_added": WritesOnce,
    "test_it_may_be_stopped_after_any_piece_of_work": NotesFirst,
    "test_two_at_once_show_everything_once": LooksOnce,
    "test_reports_that_a_lost_worker_made_are_replaced": OnlyGrows,
}


def suite(kind: type[Pages]) -> TrackerContract:
    class Suite(TrackerContract):
        def tracker(self, folder: Path) -> Any:
            return kind(folder / "shown")

        def told(self, folder: Path) -> Any:
            return {path.name: path.read_text() for path in (folder / "shown").iterdir()}

    return Suite()


CHECKS = [name for name, _ in inspect.getmembers(TrackerContract, inspect.isfunction) if name.startswith("test_")]


def test_every_check_has_a_twin() -> None:
    assert set(CHECKS) == set(TWINS)


@pytest.mark.parametrize("check", CHECKS)
def test_a_sound_tracker_passes(check: str, tmp_path: Path) -> None:
    getattr(suite(Pages), check)(tmp_path)


@pytest.mark.parametrize("check", CHECKS)
def test_a_broken_twin_fails(check: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        getattr(suite(TWINS[check]), check)(tmp_path)
