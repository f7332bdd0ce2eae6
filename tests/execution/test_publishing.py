"""Checkpoints and logs on their way to the store: copied at once, one after another, not too many waiting."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tune_tasks.execution.publishing import Background, Direct


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model" / "inner").mkdir(parents=True)
    (tmp_path / "model" / "inner" / "weights").write_text("1")
    return tmp_path / "model"


def test_a_folder_is_published_as_it_was_when_it_was_saved(folder: Path) -> None:
    publisher, go, seen = Background(), threading.Event(), []

    def publish(copy: Path) -> None:
        go.wait()
        seen.append((copy, (copy / "inner" / "weights").read_text()))

    publisher.save(folder, publish)
    (folder / "inner" / "weights").write_text("2")
    go.set()
    publisher.settle()
    assert seen[0][1] == "1"
    assert not seen[0][0].parent.exists(), "the copy is removed"


def test_a_single_file_keeps_its_name(folder: Path) -> None:
    publisher, seen = Background(), []
    publisher.save(folder / "inner" / "weights", lambda copy: seen.append((copy.name, copy.read_text())))
    publisher.settle()
    assert seen == [("weights", "1")]


def test_jobs_are_done_in_order_and_the_fourth_waits() -> None:
    publisher, go, done = Background(), threading.Event(), []
    publisher.put(lambda: done.append(go.wait()))
    while not publisher._jobs.empty():  # the first is under way
        pass
    publisher.put(lambda: done.append(2))
    publisher.put(lambda: done.append(3))
    publisher.put(lambda: done.append("left out"), urgent=False)
    fourth = threading.Thread(target=publisher.put, args=(lambda: done.append(4),))
    fourth.start()
    fourth.join(0.1)
    assert fourth.is_alive(), "two wait already"
    go.set()
    fourth.join()
    publisher.settle()
    assert done == [True, 2, 3, 4]


def test_a_folder_that_cannot_be_copied_is_the_callers_error(tmp_path: Path) -> None:
    publisher = Background()
    with pytest.raises(OSError, match="missing"):
        publisher.save(tmp_path / "missing", lambda _: None)
    publisher.settle()


def test_direct_publishes_the_original_at_once(folder: Path) -> None:
    seen: list[Path] = []
    Direct().save(folder, seen.append)
    Direct().put(lambda: seen.append(folder), urgent=False)
    Direct().settle()
    assert seen == [folder, folder]
