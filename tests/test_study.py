"""The fold: what each event does to a trial and to the study, and which events are too old to do anything."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_tasks.events import (
    Advance,
    Amended,
    Assignment,
    Checkpointed,
    CheckpointRef,
    Created,
    Ended,
    Launched,
    Opened,
    Pruned,
    Reports,
    Started,
    decode,
    encode,
)
from tune_tasks.study import OVER, StudyState
from tune_tasks.testing.histories import History, study_spec

SPACE = {"x": {"type": "float", "low": 0, "high": 1}}


@pytest.fixture
def history():
    return History(study_spec(SPACE, budget={"trials": 100}))


def begun(history, budget=9, count=1, *, last=False):
    history.plan([{"x": 0.5}] * count, budget, last=last)
    history.start(0)
    return history


def trial(history, number=0):
    return history.state.trials[number]


def checkpoint(history, step, number=0, attempt=None):
    reference = CheckpointRef(key=f"ckpt/{number}/{attempt}/{step}", digest="0" * 64, size=step)
    known = attempt or trial(history, number).attempts
    history.apply(Checkpointed(trial=number, attempt=known, step=step, checkpoint=reference, time=history.time))


def late(history, attempt, step, value, number=0):
    """A report that an attempt sends after it was given up."""
    row = {"trial": [number], "attempt": [attempt], "step": [step], "time": [history.time]}
    history.apply(Reports(**row, metrics={"loss": [value]}))


def test_a_planned_trial_waits_with_its_budget_and_reason(history):
    history.plan([{"x": 0.25}], 3)
    assert (trial(history).state, trial(history).target, trial(history).params) == ("queued", 3, {"x": 0.25})
    assert list(history.state.queue) == [0]


def test_trials_are_numbered_without_gaps(history):
    history.plan([{"x": 0.5}], 1)
    event = history.events[-1]
    with pytest.raises(ValueError, match="trial 0 is proposed, expected trial 1"):
        history.apply(event)


@pytest.mark.parametrize(
    ("outcome", "last", "state"),
    [
        ("reached", False, "paused"),
        ("reached", True, "completed"),
        ("returned", False, "completed"),
        ("failed", False, "failed"),
        ("lost", False, "failed"),
        ("carried", False, "queued"),
    ],
)
def test_how_an_attempt_ends_decides_the_state(history, outcome, last, state):
    begun(history, 1, last=last)
    history.report(0, 0.5)
    history.end(0, outcome)
    assert trial(history).state == state
    assert list(history.state.queue) == ([0] if state == "queued" else [])
    assert list(history.state.running) == []


def test_a_trial_that_is_tried_again_keeps_what_it_reported_and_counts_its_losses_apart(history):
    begun(history)
    history.report(0, 0.5, 0.4)
    history.end(0, "lost", retry=True)
    history.start(0)
    history.end(0, "failed", retry=True)
    known = trial(history)
    assert (known.state, known.attempts, known.losses, known.failures) == ("queued", 2, 1, 1)
    assert (known.value, known.budget) == (0.4, 2)
    assert known.error == "made up by a test"


def test_reports_of_an_older_attempt_are_dropped(history):
    begun(history)
    history.report(0, 0.5)
    history.end(0, "lost", retry=True)
    late(history, attempt=1, step=2, value=0.0)
    history.start(0)
    late(history, attempt=1, step=2, value=0.0)
    assert (trial(history).value, trial(history).budget) == (0.5, 1)
    history.report(0, 0.4)
    assert list(history.state.curve(0)) == [0.5, 0.4]


@pytest.mark.parametrize(
    "event",
    [
        Ended(trial=0, attempt=1, outcome="failed", time=9.0),
        Ended(trial=0, attempt=1, outcome="returned", time=9.0),
        Started(trial=0, attempt=1, step=0, worker="w", time=9.0),
        Checkpointed(trial=0, attempt=1, step=1, checkpoint=CheckpointRef(key="k", digest="d", size=1), time=9.0),
    ],
)
def test_whatever_an_older_attempt_says_changes_nothing(history, event):
    begun(history)
    history.end(0, "lost", retry=True)
    history.start(0)
    before = trial(history)
    history.apply(event)
    assert trial(history) == before


def test_a_late_start_of_an_older_attempt_does_not_start_the_trial(history):
    begun(history)
    event = history.events[-1]
    history.end(0, "lost", retry=True)
    history.apply(event)
    assert trial(history).state == "queued"


def test_an_attempt_that_goes_on_from_a_checkpoint_rewrites_the_steps_after_it(history):
    begun(history)
    history.report(0, 0.5, 0.4, 0.1)
    checkpoint(history, 1)
    history.end(0, "lost", retry=True)
    assert trial(history).checkpoint[0] == 1
    history.start(0)
    history.report(0, 0.45, step=2)
    assert list(history.state.curve(0)) == [0.5, 0.45]
    known = trial(history)
    assert (known.value, known.best_step, known.budget) == (0.45, 2, 2), "the best of the lost steps is forgotten"


def test_an_attempt_from_the_beginning_rewrites_everything(history):
    begun(history)
    history.report(0, 0.1, 0.1)
    history.end(0, "lost", retry=True)
    history.start(0)
    history.report(0, 0.7, step=1)
    assert (trial(history).value, trial(history).budget, trial(history).best_step) == (0.7, 1, 1)


def test_the_newest_checkpoint_counts_and_a_rewritten_one_is_forgotten(history):
    begun(history)
    history.report(0, 0.5, 0.4, 0.3)
    for step in (1, 2, 3):
        checkpoint(history, step)
    assert [step for step, _ in trial(history).checkpoints] == [1, 2, 3]
    history.end(0, "lost", retry=True)
    history.start(0)
    history.report(0, 0.45, step=2)
    checkpoint(history, 2)
    assert [step for step, _ in trial(history).checkpoints] == [1, 2]


def test_a_checkpoint_of_a_trial_that_does_not_run_is_not_recorded(history):
    begun(history)
    history.end(0, "lost", retry=True)
    checkpoint(history, 1)
    assert trial(history).checkpoint is None


@pytest.mark.parametrize(("mode", "best"), [("min", (0.1, 2)), ("max", (0.5, 1))])
def test_the_value_of_a_trial_is_the_best_that_it_reported(mode, best):
    history = begun(History(study_spec(SPACE, mode=mode)))
    history.report(0, 0.5, 0.1)
    history.report(0, 0.3)
    assert (trial(history).value, trial(history).best_step) == best
    assert history.state.value_at(0, 1) == 0.5
    assert history.state.value_at(0, 3) == best[0]
    assert history.state.value_at(0, 4) is None


def test_the_value_of_a_paused_trial_is_its_value_at_its_rung(history):
    """The schedulers read the one for the other."""
    begun(history, 3)
    history.report(0, 0.5, 0.1, 0.3)
    history.end(0)
    assert trial(history).value == history.state.value_at(0, trial(history).budget)


def test_the_best_trial_did_not_fail_and_of_equals_is_the_first(history):
    for number, outcome in enumerate(["reached", "failed", "returned", "reached"]):
        history.plan([{"x": 0.5}], 1)
        history.start(number)
        history.report(number, [0.2, 0.0, 0.2, 0.3][number])
        history.end(number, outcome)
    assert history.state.best.number == 0
    assert [ranked.number for ranked in history.state.ranked()] == [0, 2, 3]


def test_a_paused_trial_advances_only_when_it_is_assigned(history):
    begun(history, 1)
    history.report(0, 0.5)
    history.end(0)
    history.decide([Advance(trial=0, budget=3, last=True, reason="rank 1 of 1")])
    known = trial(history)
    assert (known.state, known.target, known.last, known.advance) == ("queued", 3, True, None)
    history.start(0)
    history.report(0, 0.4, 0.3)
    history.end(0)
    assert trial(history).state == "completed"


def test_a_running_trial_that_is_pruned_is_over_at_once_and_its_end_changes_nothing(history):
    begun(history)
    history.report(0, 0.5)
    history.apply(Pruned(trial=0, step=1, reason="worse than the median", time=history.time))
    assert (trial(history).state, trial(history).why) == ("pruned", "worse than the median")
    late(history, attempt=1, step=2, value=0.0)
    history.end(0, "stopped")
    assert (trial(history).state, trial(history).budget) == ("pruned", 1)


def test_a_trial_cannot_stop_without_a_decision(history):
    begun(history)
    with pytest.raises(ValueError, match="trial 0 stopped without a decision"):
        history.end(0, "stopped")


@pytest.mark.parametrize("outcome", ["returned", "failed"])
def test_a_trial_that_is_over_cannot_be_assigned_again(history, outcome):
    begun(history)
    history.end(0, outcome)
    assignment = Assignment(trial=0, budget=3, last=True, reason="again")
    again = history.events[1].model_copy(update={"proposals": (), "assignments": (assignment,)})
    with pytest.raises(ValueError, match=r"trial 0 is \w+ and cannot be assigned"):
        history.apply(again)


def test_a_carried_trial_goes_on_in_the_next_batch_where_it_stopped(history):
    begun(history, 5)
    history.report(0, 0.5, 0.4)
    checkpoint(history, 2)
    history.end(0, "carried")
    known = trial(history)
    assert (known.state, known.why, known.budget, known.target) == ("queued", "paused at the end of a step", 2, 5)
    assignment = Assignment(trial=0, budget=5, last=False, reason="goes on")
    history.apply(history.events[1].model_copy(update={"proposals": (), "assignments": (assignment,), "batch": "next"}))
    assert trial(history).batch == "next"
    history.start(0)
    history.report(0, 0.3)
    assert list(history.state.curve(0)) == [0.5, 0.4, 0.3]


def test_a_new_driver_finds_the_running_trials_waiting(history):
    history.apply(Opened(epoch=1, owner="first", time=10.0))
    begun(history, count=2)
    history.apply(Opened(epoch=2, owner="second", time=20.0))
    assert [known.state for known in history.state.trials] == ["queued", "queued"]
    assert trial(history).why == "its driver went away"
    late(history, attempt=1, step=1, value=0.0)
    assert trial(history).value is None
    history.start(0)
    assert trial(history).attempts == 2


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_epoch_must_be_higher_than_the_last(history, epoch):
    history.apply(Opened(epoch=2, owner="first", time=10.0))
    with pytest.raises(ValueError, match=f"epoch {epoch} is opened after epoch 2"):
        history.apply(Opened(epoch=epoch, owner="second", time=20.0))


def launched(time):
    return Launched(key="k", batch="b", states={}, best=None, value=None, reason="over", time=time)


def test_only_the_time_in_which_a_driver_works_is_spent():
    history = begun(History(study_spec(SPACE)))
    state = history.state
    history.apply(Opened(epoch=1, owner="first", time=100.0))
    history.apply(Ended(trial=0, attempt=1, outcome="lost", retry=True, time=105.0))
    assert state.elapsed == 5.0
    history.apply(launched(110.0))
    assert state.elapsed == 10.0
    history.apply(Opened(epoch=2, owner="second", time=1000.0))
    assert state.elapsed == 10.0
    history.apply(Started(trial=0, attempt=2, step=0, worker="w", time=1007.0))
    assert state.elapsed == 17.0


def test_a_driver_that_died_has_spent_the_time_until_its_last_event():
    history = begun(History(study_spec(SPACE)))
    history.apply(Opened(epoch=1, owner="first", time=100.0))
    history.apply(Ended(trial=0, attempt=1, outcome="lost", retry=True, time=130.0))
    history.apply(Opened(epoch=2, owner="second", time=5000.0))
    assert history.state.elapsed == 30.0


def test_an_amended_study_is_no_longer_done(history):
    state = history.state
    state.done = True
    spec = study_spec(SPACE, budget={"trials": 200}).record()
    history.apply(Amended(spec=spec, changes=("budget.trials",), time=1.0))
    assert (state.done, state.spec.budget.trials) == (False, 200)


def test_the_first_event_gives_the_spec_and_the_study():
    state = StudyState()
    spec = study_spec(SPACE, mode="max")
    state.apply(Created(study="s", spec=spec.record(), folder="/f", time=0.0))
    assert (state.study, state.folder, state.spec, state.sign) == ("s", "/f", spec, -1.0)


MOVES = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(["start", "report", "report", "reach", "lose", "carry", "fail", "prune", "advance", "open"]),
    ),
    max_size=80,
)


@settings(deadline=None, max_examples=150)
@given(MOVES, st.randoms(use_true_random=False))
def test_whatever_happens_the_books_agree_and_the_log_tells_it_again(moves, rng):
    """Queue, running trials, values and budgets agree with the trials; a trial that is over stays as it is."""
    history = History(study_spec(SPACE))
    history.plan([{"x": 0.5}] * 4, 3)
    over = {}
    for number, move in moves:
        _move(history, number, move, rng)
        state = history.state
        for known in state.trials:
            curve = list(state.curve(known.number))
            assert (known.value, known.budget) == (min(curve, default=None), len(curve))
            assert over.get(known.number, known) == known
            if known.state in OVER:
                over[known.number] = known
        assert sorted(state.queue) == [known.number for known in state.trials if known.state == "queued"]
        assert sorted(state.running) == [known.number for known in state.trials if known.state == "running"]
    again = StudyState()
    for event in history.events:
        again.apply(decode(encode(event)))
    assert again.trials == history.state.trials
    assert (list(again.queue), again.elapsed) == (list(history.state.queue), history.state.elapsed)


@settings(deadline=None, max_examples=50)
@given(MOVES, st.randoms(use_true_random=False))
def test_reports_that_are_heard_one_by_one_do_what_their_events_do(moves, rng):
    history, heard = History(study_spec(SPACE)), StudyState()
    history.plan([{"x": 0.5}] * 4, 3)
    history.start(0)
    history.report(0, 0.1, 0.5)
    history.report(0, 0.7, step=1)  # rewrites both
    for number, move in moves:
        _move(history, number, move, rng)
    for event in history.events:
        if not isinstance(event, Reports):
            heard.apply(event)
            continue
        rows = zip(event.trial, event.attempt, event.step, event.time, event.metrics["loss"], strict=True)
        for number, attempt, step, time, value in rows:
            heard.report(number, attempt, step, time, {"loss": value})
            heard.report(number, attempt - 1, 1, time, {"loss": value / 2})  # of an attempt that is no more
    assert heard.trials == history.state.trials
    assert [heard.curve(n) for n in range(4)] == [history.state.curve(n) for n in range(4)]
    assert heard.now == history.state.now


def _move(history, number, move, rng):
    known = trial(history, number)
    if move == "open":
        history.apply(Opened(epoch=history.state.epoch + 1, owner="o", time=history.time))
    elif known.state == "queued" and move == "start":
        history.start(number)
    elif known.state == "paused" and move == "advance":
        history.decide([Advance(trial=number, budget=known.budget + 2, last=rng.random() < 0.5, reason="r")])
    elif known.state == "running" and move == "report":
        step = rng.randint(1, known.budget + 1) if rng.random() < 0.3 else None
        history.report(number, rng.random(), step=step)
    elif known.state in {"running", "paused"} and move == "prune":
        history.prune(number)
    elif known.state == "running" and move in {"reach", "lose", "carry", "fail"}:
        outcome = {"reach": "reached", "lose": "lost", "carry": "carried", "fail": "failed"}[move]
        history.end(number, outcome, retry=move == "lose")
