"""What an objective imports: how reports are checked and counted, and what happens outside a trial."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tune_tasks as tt
from tune_tasks import session as sessions
from tune_tasks.session import CheckpointError, Context, MetricError, MissingMetric, Session, TrialStopped


class Kept:
    """An attempt that keeps what its session says."""

    def __init__(self, folder: Path, restored: tuple[int, Path] | None = None) -> None:
        self.context = Context("study", 1, 1, {}, "here:1", None, lambda: folder)
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.saved: list[int] = []
        self.restored = restored
        self.broken = False

    def row(self, step: int, time: float, metrics: dict[str, float]) -> None:
        self.rows.append((step, metrics))

    def save(self, step: int, path: Path) -> None:
        if self.broken:
            raise CheckpointError("the checkpoint of step 1 could not be published: no space")
        self.saved.append(step)

    def restore(self) -> tuple[int, Path] | None:
        if self.broken:
            raise CheckpointError("the checkpoint of step 4 could not be read: gone")
        return self.restored


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


@pytest.fixture
def session(kept: Kept) -> Session:
    return Session(kept, "loss", None)


class Tensor:
    """Like a tensor of a framework: its value comes through __float__ and its shape is told by ndim."""

    def __init__(self, value: float, ndim: int = 0) -> None:
        self.value, self.ndim = value, ndim

    def __float__(self) -> float:
        return self.value


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    [2, 2.0, Decimal(2), Fraction(2), np.float32(2), np.float64(2), np.int8(2), np.array(2), Tensor(2.0)],
    ids=lambda value: type(value).__name__,
)
def test_whatever_is_one_finite_number_is_taken_as_float(session: Session, kept: Kept, value: Any) -> None:
    session.report({"loss": value})
    assert kept.rows == [(1, {"loss": 2.0})]
    assert type(kept.rows[0][1]["loss"]) is float


def test_booleans_are_numbers(session: Session, kept: Kept) -> None:
    session.report({"loss": 0.5, "done": True, "wrong": np.bool_(False)})
    assert kept.rows == [(1, {"loss": 0.5, "done": 1.0, "wrong": 0.0})]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (np.float64("-inf"), "-inf"),
        (Decimal("sNaN"), "Decimal('sNaN')"),
        ("0.5", "'0.5'"),
        (b"1", "b'1'"),
        (None, "None"),
        ([1.0], "[1.0]"),
        ({"a": 1}, "{'a': 1}"),
        (1j, "1j"),
        (np.array([1.0]), "array([1.])"),
        (np.str_("1"), "np.str_('1')"),
        (10**400, "1000"),
        (10**9999, "a int"),
        ("x" * 10_000_000, "'xxx"),
        (Unshowable(), "a Unshowable"),
        (Tensor(1.0, ndim=1), "<"),
        (Tensor(float("nan")), "<"),
    ],
    ids=lambda value: str(value)[:12] if isinstance(value, str) else type(value).__name__,
)
def test_everything_else_is_refused_with_metric_step_and_value(
    session: Session, kept: Kept, value: Any, shown: str
) -> None:
    session.report({"loss": 1.0})
    session.report({"loss": 1.0})
    with pytest.raises(MetricError) as refused:
        session.report({"loss": value})
    assert str(refused.value).startswith(f"report 3: metric 'loss' is {shown}")
    assert str(refused.value).endswith(", must be a finite number")
    assert len(str(refused.value)) < 200
    assert len(kept.rows) == 2


def test_a_missing_metric_is_named_with_the_nearest(session: Session) -> None:
    session = Session(session._attempt, "val_los", None)
    with pytest.raises(MissingMetric) as refused:
        session.report({"val_loss": 1, "acc": 2})
    assert (
        str(refused.value)
        == "report 1 has no 'val_los', the study's metric; it has 'acc', 'val_loss'. Did you mean 'val_loss'?"
    )


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ({}, "report 1 has no 'loss', the study's metric; it has no metrics"),
        ([("loss", 1)], "report 1 is [('loss', 1)], must be a mapping from metric names to numbers"),
        (0.5, "report 1 is 0.5, must be a mapping from metric names to numbers"),
        ({"loss": 1, 7: 1}, "report 1: metric name 7 is not allowed, must be a text that is not empty"),
        ({"loss": 1, "": 1}, "report 1: metric name '' is not allowed, must be a text that is not empty"),
    ],
)
def test_what_is_no_report_is_refused(session: Session, metrics: Any, text: str) -> None:
    with pytest.raises(MetricError) as refused:
        session.report(metrics)
    assert str(refused.value) == text


def test_a_report_is_a_copy(session: Session, kept: Kept) -> None:
    metrics = {"loss": 1.0}
    session.report(metrics)
    metrics["loss"] = 2.0
    assert kept.rows == [(1, {"loss": 1.0})]


def test_after_a_refusal_nothing_is_taken_any_more(session: Session, kept: Kept) -> None:
    with pytest.raises(MetricError):
        session.report({"loss": None})
    with pytest.raises(TrialStopped):
        session.report({"loss": 1.0})
    assert kept.rows == []
    assert isinstance(session.error, MetricError)


def test_an_exception_handler_does_not_stop_a_stop(session: Session) -> None:
    session.stop(pause=False)

    def careless() -> None:
        try:
            session.report({"loss": 1.0})
        except Exception:  # noqa: BLE001  # this is what must not catch it
            pytest.fail("caught as an ordinary error")

    with pytest.raises(TrialStopped):
        careless()


def test_the_last_report_of_the_budget_is_recorded_and_stops(kept: Kept) -> None:
    session = Session(kept, "loss", 2)
    session.report({"loss": 1.0})
    with pytest.raises(TrialStopped):
        session.report({"loss": 0.5})
    assert [step for step, _ in kept.rows] == [1, 2]
    assert session.finish({"loss": 0.1}) == "reached", "what is returned then is no report"
    assert len(kept.rows) == 2


def test_a_pause_waits_for_a_checkpoint_and_a_stop_does_not(session: Session, kept: Kept, tmp_path: Path) -> None:
    session.stop(pause=True)
    session.report({"loss": 1.0})
    with pytest.raises(TrialStopped):
        session.report({"loss": 1.0}, checkpoint=tmp_path)
    assert (session.ended, kept.saved) == ("carried", [2])


def test_a_trial_that_shall_move_knows_it_and_ends_at_its_next_checkpoint(
    session: Session, kept: Kept, tmp_path: Path
) -> None:
    assert kept.context.preempted is False, "outside a worker nobody says so"
    session.move()
    session.report({"loss": 1})
    with pytest.raises(TrialStopped):
        session.report({"loss": 1}, checkpoint=tmp_path)
    assert (session.preempted, session.ended, kept.saved) == (True, "moved", [2])


@pytest.mark.parametrize(("pause", "outcome"), [(True, "carried"), (False, "stopped")])
def test_a_stop_counts_more_than_a_move(session: Session, tmp_path: Path, pause: bool, outcome: str) -> None:
    session.move()
    session.stop(pause=pause)
    with pytest.raises(TrialStopped):
        session.report({"loss": 1}, checkpoint=tmp_path)
    assert session.ended == outcome


def test_a_pause_does_not_weaken_a_stop(session: Session) -> None:
    session.stop(pause=False)
    session.stop(pause=True)
    with pytest.raises(TrialStopped):
        session.report({"loss": 1.0})
    assert session.ended == "stopped"


def test_a_budget_that_is_used_up_counts_more_than_a_pause(kept: Kept, tmp_path: Path) -> None:
    session = Session(kept, "loss", 1)
    session.stop(pause=True)
    with pytest.raises(TrialStopped):
        session.report({"loss": 1.0}, checkpoint=tmp_path)
    assert session.ended == "reached"


def test_steps_go_on_from_a_checkpoint_that_was_asked_for(tmp_path: Path) -> None:
    kept = Kept(tmp_path, (4, tmp_path))
    session = Session(kept, "loss", None)
    assert session.checkpoint() == session.checkpoint() == tmp_path
    session.report({"loss": 1.0})
    assert kept.rows[0][0] == 5


def test_steps_start_at_1_without_asking_and_a_late_question_changes_nothing(tmp_path: Path) -> None:
    kept = Kept(tmp_path, (4, tmp_path))
    session = Session(kept, "loss", None)
    session.report({"loss": 1.0})
    assert session.checkpoint() == tmp_path
    session.report({"loss": 1.0})
    assert [step for step, _ in kept.rows] == [1, 2]


def test_a_checkpoint_that_cannot_be_read_ends_the_attempt_though_the_error_is_caught(kept: Kept) -> None:
    session = Session(kept, "loss", None)
    kept.broken = True
    with pytest.raises(CheckpointError):
        session.checkpoint()
    with pytest.raises(TrialStopped):
        session.report({"loss": 1.0})
    assert (session.ended, kept.rows) == ("failed", [])


def test_a_checkpoint_that_cannot_be_published_is_raised_at_a_report(
    session: Session, kept: Kept, tmp_path: Path
) -> None:
    kept.broken = True
    with pytest.raises(CheckpointError, match="no space"):
        session.report({"loss": 1.0}, checkpoint=tmp_path)
    assert session.ended == "failed"


@pytest.mark.parametrize("returned", [None, 1.0, "x"])
def test_reports_are_enough_whatever_is_returned(session: Session, returned: Any) -> None:
    session.report({"loss": 1.0})
    assert session.finish(returned) == "returned"


def test_reports_from_many_threads_are_counted_without_gaps(session: Session, kept: Kept) -> None:
    def report() -> None:
        for _ in range(500):
            session.report({"loss": 1.0})

    threads = [threading.Thread(target=report) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [step for step, _ in kept.rows] == list(range(1, 2001))


def test_the_active_session_gets_what_the_objective_says(session: Session, kept: Kept, tmp_path: Path) -> None:
    sessions.activate(session)
    try:
        tt.report({"loss": 1.0}, checkpoint=str(tmp_path))
        assert tt.get_checkpoint() is None
        assert tt.get_context().study == "study"
        assert tt.get_context().folder == tmp_path
    finally:
        sessions.activate(None)
    assert (kept.rows, kept.saved) == ([(1, {"loss": 1.0})], [1])


def test_a_context_cannot_be_changed(session: Session) -> None:
    with pytest.raises(AttributeError):
        session.context.trial = 2  # type: ignore[misc]


def test_a_context_without_a_largest_budget_says_what_to_do(session: Session) -> None:
    with pytest.raises(tt.ConfigError, match="give the scheduler a max_budget"):
        _ = session.context.max_budget


def test_outside_a_trial_a_script_runs_plainly(caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    monkeypatch.setattr(sessions, "_told", False)
    with caplog.at_level(logging.INFO, logger="tune_tasks"):
        tt.report({"loss": None, "anything": object()})
        tt.report({})
    assert tt.get_checkpoint() is None
    assert [record.message for record in caplog.records] == [
        "report() does nothing here: no trial is running in this process"
    ]


def test_outside_a_trial_there_is_no_context() -> None:
    with pytest.raises(tt.TuneError, match=r"run the objective through tune_tasks\.tune\(spec\)"):
        tt.get_context()


def test_training_code_loads_only_what_it_needs() -> None:
    program = "import sys, tune_tasks.session; print([m for m in ('pydantic', 'numpy', 'orjson') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
