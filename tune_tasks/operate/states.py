"""Tells two states of a study apart, field by field. Pure; this module must not read a log."""

from __future__ import annotations

from dataclasses import fields
from itertools import zip_longest

from tune_tasks.store.snapshot import Position, encode
from tune_tasks.study import StudyState

_AT = Position()


def differences(one: StudyState, other: StudyState) -> list[str]:
    """Names what differs, for a person; nothing where both states are the same in every field."""
    if encode(one, _AT) == encode(other, _AT):
        return []
    plain = [field.name for field in fields(StudyState) if field.name not in {"trials", "curves"}]
    found = [name for name in plain if _plain(getattr(one, name)) != _plain(getattr(other, name))]
    found += [f"trial {index}" for index, (a, b) in enumerate(zip_longest(one.trials, other.trials)) if a != b]
    return found or ["reports"]


def _plain(value: object) -> object:
    """In a dictionary of a state the order says something too: who waits first, what was recorded first."""
    return list(value.items()) if isinstance(value, dict) else value
