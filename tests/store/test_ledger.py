"""A ledger is a list that several processes add to, each on what it has seen."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from tune_tasks.errors import CorruptLog
from tune_tasks.store import open_objects
from tune_tasks.store.ledger import Ledger


def ledger(root: Path) -> Ledger:
    return Ledger(open_objects(str(root)), "of/tests")


def test_entries_are_read_in_the_order_in_which_they_were_added(tmp_path: Path) -> None:
    assert ledger(tmp_path).entries() == []
    for number in range(12):
        assert ledger(tmp_path).append({"number": number}, after=number)
    assert [entry["number"] for entry in ledger(tmp_path).entries()] == list(range(12))


def test_of_two_who_add_the_next_entry_one_does(tmp_path: Path) -> None:
    assert ledger(tmp_path).append({"who": "first"}, after=0)
    assert not ledger(tmp_path).append({"who": "second"}, after=0)
    assert ledger(tmp_path).entries() == [{"who": "first"}]


def test_the_same_entry_again_is_no_conflict(tmp_path: Path) -> None:
    assert ledger(tmp_path).append({"b": 1, "a": 2}, after=0)
    assert ledger(tmp_path).append({"a": 2, "b": 1}, after=0)


def test_a_mark_is_of_one_entry_and_is_no_entry(tmp_path: Path) -> None:
    made = ledger(tmp_path)
    made.append({}, after=0)
    assert not made.marked(1)
    made.mark(1)
    made.mark(1)
    assert (made.marked(1), made.marked(2), len(made.entries())) == (True, False, 1)


def test_a_missing_entry_is_named(tmp_path: Path) -> None:
    made = ledger(tmp_path)
    for number in range(3):
        made.append({}, after=number)
    (tmp_path / "of" / "tests" / "000000000002.json").unlink()
    with pytest.raises(CorruptLog, match=r"of/tests: entry 2 is missing, but 000000000003\.json is there"):
        made.entries()


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_what_is_no_entry_is_named(tmp_path: Path, content: str) -> None:
    ledger(tmp_path).append({}, after=0)
    (tmp_path / "of" / "tests" / "000000000001.json").write_text(content)
    with pytest.raises(CorruptLog, match=r"of/tests/000000000001\.json"):
        ledger(tmp_path).entries()


def _race(root: Path, name: str, gate: object) -> None:
    gate.wait()  # type: ignore[attr-defined]  # multiprocessing's barrier
    made, won = ledger(root), 0
    for number in range(40):
        won += made.append({"who": name, "number": number}, after=number)
    (root / f"{name}.txt").write_text(str(won))


def test_processes_that_race_win_each_entry_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(3)
    racers = [context.Process(target=_race, args=(tmp_path, name, gate)) for name in ("one", "two", "three")]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert sum(int((tmp_path / f"{name}.txt").read_text()) for name in ("one", "two", "three")) == 40
    assert [entry["number"] for entry in ledger(tmp_path).entries()] == list(range(40))
