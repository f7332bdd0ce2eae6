"""The suite that a tracker must pass to show studies: derive a class from `TrackerContract` and give it two methods.

    class TestMyTracker(TrackerContract):
        def tracker(self, folder):
            return MyTracker(path=str(folder / "shown"))

        def told(self, folder):
            return read(folder / "shown")

No test asks what a projection looks like, only that it is the same whatever became of those who wrote it.
"""

from __future__ import annotations

from collections import deque
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from tune_tasks.events import Ended
from tune_tasks.study import StudyState
from tune_tasks.testing.histories import History, study_spec
from tune_tasks.tracking import Tracker

URL = "/somewhere/studies/test"


class TrackerContract:
    """What whoever runs trackers asks of one. Each test has a folder of its own, pytest's `tmp_path`."""

    def tracker(self, folder: Path) -> Tracker:
        """A new tracker that knows nothing yet, and shows studies in a place that belongs to `folder` alone."""
        raise NotImplementedError("a class derived from TrackerContract has a method `tracker`")

    def told(self, folder: Path) -> Any:
        """All that can be seen in that place, to be compared; without what its tool makes up, such as ids."""
        raise NotImplementedError("a class derived from TrackerContract has a method `told`")

    def test_it_has_a_place(self, tmp_path: Path) -> None:
        """Without one it is never updated."""
        assert self.tracker(tmp_path).place(begun().state, URL)

    def test_another_update_changes_nothing(self, tmp_path: Path) -> None:
        """Neither by the same tracker nor by one that knows nothing."""
        history, tracker = begun(), self.tracker(tmp_path)
        _bring(tracker, history.state)
        before = self.told(tmp_path)
        _bring(tracker, history.state)
        assert self.told(tmp_path) == before
        _bring(self.tracker(tmp_path), history.state)
        assert self.told(tmp_path) == before

    def test_what_is_new_is_added(self, tmp_path: Path) -> None:
        """Piece by piece it comes to the same as at once."""
        history = begun()
        _bring(self.tracker(tmp_path / "once"), ended(begun()).state)
        tracker = self.tracker(tmp_path / "twice")
        _bring(tracker, history.state)
        before = self.told(tmp_path / "twice")
        _bring(tracker, ended(history).state)
        assert self.told(tmp_path / "twice") != before
        assert self.told(tmp_path / "twice") == self.told(tmp_path / "once")

    def test_it_may_be_stopped_after_any_piece_of_work(self, tmp_path: Path) -> None:
        """What a killed process left is completed by the next one."""
        state = ended(begun()).state
        _bring(self.tracker(tmp_path / "once"), state)
        for count in range(4):
            deque(islice(self.tracker(tmp_path / "often").update(state, URL), count), maxlen=0)
        _bring(self.tracker(tmp_path / "often"), state)
        assert self.told(tmp_path / "often") == self.told(tmp_path / "once")

    def test_two_at_once_show_everything_once(self, tmp_path: Path) -> None:
        """A piece of work in turn, of two that know nothing of each other."""
        state = ended(begun()).state
        _bring(self.tracker(tmp_path / "one"), state)
        both = [self.tracker(tmp_path / "both").update(state, URL) for _ in range(2)]
        deque(zip_longest(*both), maxlen=0)
        assert self.told(tmp_path / "both") == self.told(tmp_path / "one")

    def test_reports_that_a_lost_worker_made_are_replaced(self, tmp_path: Path) -> None:
        """The trial goes on from an earlier step, and another tracker sees that."""
        history = begun()
        history.report(1, 0.4, 0.3)
        _bring(self.tracker(tmp_path / "both"), history.state)
        lost = {"outcome": "lost", "retry": True, "error": "gone"}
        history.apply(Ended(trial=1, attempt=1, time=history.time, **lost))
        history.start(1)
        history.report(1, 0.7, step=2)
        _bring(self.tracker(tmp_path / "both"), history.state)
        _bring(self.tracker(tmp_path / "after"), history.state)
        assert self.told(tmp_path / "both") == self.told(tmp_path / "after")


def begun() -> History:
    """A study with one trial that is paused, one that runs, and one that waits."""
    history = History(study_spec({"x": {"type": "float", "low": 0.0, "high": 1.0}}))
    history.plan([{"x": 0.1}, {"x": 0.2}, {"x": 0.3}], budget=2)
    history.run(0, [0.9, 0.8])
    history.start(1)
    history.report(1, 0.5)
    return history


def ended(history: History) -> History:
    """The same study after all three trials are over."""
    history.prune(0)
    history.report(1, 0.6, 0.4)
    history.end(1, "returned")
    history.start(2)
    history.end(2, "failed")
    return history


def _bring(tracker: Tracker, state: StudyState) -> None:
    deque(tracker.update(state, URL), maxlen=0)
