"""Which checkpoint is put forward, and whether it beats the champion."""

from __future__ import annotations

import pytest

from tests.histories import Story
from tune_tasks.errors import NothingToPromote
from tune_tasks.events import CheckpointRef
from tune_tasks.registry import Champion, candidate, decide_promotion
from tune_tasks.spec import StudySpec


def history(mode: str = "min") -> Story:
    spec = {"name": "s", "objective": "o:train", "metric": "loss", "mode": mode}
    found = Story(StudySpec(**spec, space={"x": {"type": "float", "low": 0.0, "high": 1.0}}))
    found.open()
    return found


def saved(name: str) -> CheckpointRef:
    return CheckpointRef(key=f"ckpt/{name}", digest="0" * 64, size=1)


def champion(value: float | None = 0.0901, metric: str | None = "loss", mode: str | None = "min") -> Champion:
    return Champion(
        version="3", uri="models:/m/3", value=value, metric=metric, mode=mode, trial=1, study=None, path=None
    )


def decide(value: float, held: Champion | None, mode: str = "min", least: float = 0.0) -> tuple[bool, str]:
    return decide_promotion(value, held, metric="loss", mode=mode, min_improvement=least)


@pytest.mark.parametrize(("mode", "trial"), [("min", 1), ("max", 0)])
def test_the_checkpoint_with_the_best_value_is_put_forward(mode: str, trial: int) -> None:
    story = history(mode)
    for value in (0.5, 0.4):
        number = story.propose({"x": value}, budget=1)
        story.train(number, [{"loss": value}], checkpoint=saved(str(number)))
    assert candidate(story.state).trial == trial
    assert candidate(story.state).checkpoint == saved(str(trial))


def test_the_value_is_that_of_the_checkpoint_and_not_of_a_better_step_that_was_not_saved() -> None:
    story = history()
    number = story.propose({"x": 0.5}, budget=3)
    story.train(number, [{"loss": 0.1}, {"loss": 0.3}], checkpoint=saved("second"), outcome="lost", retry=True)
    found = candidate(story.state)
    assert (found.step, found.value) == (2, 0.3)


def test_without_any_checkpoint_the_best_trial_is_put_forward_alone() -> None:
    story = history()
    story.train(story.propose({"x": 0.5}), [{"loss": 0.3}, {"loss": 0.2}, {"loss": 0.4}], outcome="returned")
    found = candidate(story.state)
    assert (found.trial, found.step, found.value, found.checkpoint) == (0, 2, 0.2, None)


def test_a_failed_trial_is_never_put_forward() -> None:
    story = history()
    story.train(story.propose({"x": 0.5}, budget=1), [{"loss": 0.1}], checkpoint=saved("a"), outcome="failed")
    story.train(story.propose({"x": 0.6}, budget=1), [{"loss": 0.9}], checkpoint=saved("b"))
    assert candidate(story.state).trial == 1


def test_a_study_without_a_value_has_nothing_to_promote() -> None:
    story = history()
    story.train(story.propose({"x": 0.5}, budget=1), [], outcome="failed", error="ValueError")
    with pytest.raises(NothingToPromote, match="1 failed"):
        candidate(story.state)


def test_the_first_model_becomes_champion() -> None:
    assert decide(5.0, None)[0]


def test_a_better_model_wins_and_the_reason_has_the_numbers() -> None:
    assert decide(0.0812, champion()) == (
        True,
        "loss 0.0812 beats the champion's 0.0901 (version 3) by 0.0089, at least 0 is asked",
    )


def test_larger_is_better_where_the_mode_says_so() -> None:
    assert decide(0.95, champion(0.9, mode="max"), mode="max")[0]
    assert not decide(0.85, champion(0.9, mode="max"), mode="max")[0]


def test_a_model_that_is_worse_or_the_same_does_not_win() -> None:
    assert decide(0.1, champion()) == (
        False,
        "loss 0.1 does not beat the champion's 0.0901 (version 3): it is worse by 0.0099",
    )
    assert decide(0.0901, champion())[0] is False


def test_an_improvement_smaller_than_asked_does_not_win() -> None:
    assert decide(0.0812, champion(), least=0.01) == (
        False,
        "loss 0.0812 beats the champion's 0.0901 (version 3) by 0.0089 only, at least 0.01 is asked",
    )


def test_an_improvement_of_exactly_what_is_asked_wins_whatever_floats_make_of_it() -> None:
    assert 0.3 - 0.2 < 0.1
    assert decide(0.2, champion(0.3), least=0.1)[0]


@pytest.mark.parametrize("held", [champion(metric="accuracy"), champion(mode="max"), champion(None, None, None)])
def test_a_champion_that_cannot_be_compared_stays(held: Champion) -> None:
    better, reason = decide(-100.0, held)
    assert not better
    assert "cannot be compared" in reason
