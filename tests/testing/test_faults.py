"""The store that goes wrong on purpose is a store otherwise, and goes wrong in just the way that it is told to."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from tune_tasks.errors import Unavailable
from tune_tasks.store import Objects
from tune_tasks.store.retry import Retrying
from tune_tasks.testing.faults import BEGINNING, Crash, Fault, SharedObjects
from tune_tasks.testing.stores import StoreContract

STORES: dict[str, SharedObjects] = {}


def open_shared(url: str) -> Objects:
    return Retrying(STORES.setdefault(url, SharedObjects(url=url)).process("another"), 1)


class TestWithoutFaults(StoreContract):
    shared = False
    opener = f"{__name__}:open_shared"

    @pytest.fixture
    def objects(self) -> Objects:
        return open_shared(f"model://{uuid4().hex}/study")


def once(fault: Fault) -> SharedObjects:
    """A store whose first call has this fault."""
    return SharedObjects(lambda call: fault if call.number == 1 else None)


@pytest.mark.parametrize(
    ("fault", "error", "landed"),
    [
        (Fault.FAIL, Unavailable, False),
        (Fault.CONFLICT, Unavailable, False),
        (Fault.UNCLEAR, Unavailable, True),
        (Fault.CRASH, Crash, False),
        (Fault.CRASH_AFTER, Crash, True),
    ],
)
@pytest.mark.parametrize("write", ["create", "replace"])
def test_a_fault_has_its_effect_or_not_and_is_told(fault: Fault, error: type, landed: bool, write: str) -> None:
    shared = once(fault)
    with pytest.raises(error):
        getattr(shared.process("first"), write)("log/1", b"data")
    assert (shared.process("second").read("log/1") is not None) == landed
    assert [answer.call.process for answer in shared.history] == ["second"]


def test_a_create_whose_reply_is_lost_hears_that_the_object_is_there() -> None:
    objects = once(Fault.LOST).process("first")
    assert objects.create("log/1", b"mine") is False
    assert objects.read("log/1") == b"mine"
    with pytest.raises(Unavailable):
        once(Fault.LOST).process("first").read("log/1")


@pytest.mark.parametrize(("fault", "error"), [(Fault.LATE, Unavailable), (Fault.CRASH_LATE, Crash)])
def test_a_late_write_lands_after_its_sender_has_given_it_up_and_keeps_the_condition(fault: Fault, error: type) -> None:
    shared = once(fault)
    with pytest.raises(error):
        shared.process("first").create("log/1", b"late")
    objects = shared.process("second")
    assert [objects.read("log/1") for _ in range(3)] == [None, None, b"late"]
    shared = once(fault)
    with pytest.raises(error):
        shared.process("first").create("log/1", b"late")
    objects = shared.process("second")
    assert objects.create("log/1", b"in time")
    assert {objects.read("log/1") for _ in range(5)} == {b"in time"}


def test_a_dead_process_writes_nothing_more_not_even_while_it_is_cleaned_up(tmp_path: Path) -> None:
    shared = once(Fault.CRASH)
    objects = shared.process("first")
    (tmp_path / "file").write_bytes(b"x")
    for call in (
        lambda: objects.read("a"),
        lambda: objects.create("a", b""),
        lambda: objects.replace("a", b""),
        lambda: objects.delete("a"),
        lambda: objects.list(""),
        lambda: objects.upload(tmp_path / "file", "a"),
    ):
        with pytest.raises(Crash):
            call()
    assert (shared.objects, shared.history, shared.calls) == ({}, [], 1)


def test_others_go_first_before_a_call_and_before_a_slow_answer() -> None:
    seen: list[int] = []
    shared = once(Fault.SLOW)
    shared.turn = lambda call: seen.append(len(shared.objects)) if call.process == "first" else None
    assert shared.process("first").create("log/1", b"data")
    assert seen == [0, 1]


def test_a_process_that_is_killed_while_it_waits_has_no_effect() -> None:
    shared = SharedObjects()
    objects = shared.process("first")
    shared.turn = lambda call: setattr(objects, "dead", True)
    with pytest.raises(Crash):
        objects.create("log/1", b"data")
    assert shared.objects == {}


def test_what_was_answered_is_kept_with_what_was_given(tmp_path: Path) -> None:
    shared = SharedObjects()
    objects = shared.process("first")
    objects.create("log/1", b"one")
    objects.create("log/1", b"two")
    objects.read("log/1")
    told = [(answer.call.number, answer.call.name, answer.given, answer.told) for answer in shared.history]
    assert told == [(1, "create", b"one", True), (2, "create", b"two", False), (3, "read", None, b"one")]
    assert objects.entries("")[0].modified == BEGINNING + 1
