"""A trial is a frozen value; what an event changes is a new one."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tune_tasks.trial import Trial


def test_a_changed_trial_is_a_copy_in_which_only_that_differs() -> None:
    trial = Trial(3, {"x": 1.0}, "random", value=0.5, attempts=2)
    assert trial.changed(value=0.25, state="running") == replace(trial, value=0.25, state="running")
    assert trial == Trial(3, {"x": 1.0}, "random", value=0.5, attempts=2)
    assert all(getattr(trial.changed(), field.name) is getattr(trial, field.name) for field in fields(trial))


def test_a_trial_has_no_other_fields() -> None:
    with pytest.raises(KeyError, match="velue"):
        Trial(0, {}, "random").changed(velue=1.0)
