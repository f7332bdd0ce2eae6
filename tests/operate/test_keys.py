"""Every key that the engine writes is known for what it is, and no other key is taken for one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_tasks.operate.keys import read_hint, snapshot_number, sort_entries
from tune_tasks.store import Entry, open_objects


def entries(*keys: str) -> list[Entry]:
    return [Entry(key, 1, float(index)) for index, key in enumerate(keys)]


def test_nothing_that_a_study_writes_is_unknown(study: Path) -> None:
    found = sort_entries(open_objects(str(study)).entries(""))
    assert found.unknown == found.probes == ()
    assert [*found.segments] == list(range(1, len(found.segments) + 1))
    assert (len(found.snapshots), len(found.models), found.hint is not None) == (2, 1, True)
    assert found.checkpoints
    assert found.output


@pytest.mark.parametrize(
    "key",
    [
        "notes.txt",
        "log/1.jsonl",
        "log/000000000001.jsonl.bak",
        "snap/000000000064.snap",
        "snap/x",
        "ckpt/mine.txt",
        "ckpt/000001/1/3/data/weights",
        "ckpt/000001/1/3-0123456/manifest.json",
        "ckpt/000001/1/3-01234567/other.txt",
        "models/readme",
        "models/000001-000002-01234567-01234567/notes.txt",
        "probe/mine",
        "logs/readme.txt",
        "head.json",
        "sub/log/000000000001.jsonl",
    ],
)
def test_what_only_looks_like_ours_is_unknown(key: str) -> None:
    assert [entry.key for entry in sort_entries(entries(key)).unknown] == [key]


def test_a_folder_has_the_size_and_the_age_of_its_objects() -> None:
    key = "ckpt/000001/1/3-01234567"
    found = sort_entries(entries(f"{key}/data/a", f"{key}/data/b/c", f"{key}/manifest.json"))
    folder = found.checkpoints[key]
    assert {*folder.files} == {"data/a", "data/b/c", "manifest.json"}
    assert (folder.size, folder.modified) == (3, 2.0)


def test_a_hint_names_its_snapshots() -> None:
    assert read_hint(b'{"snapshot":"a","kept":["b","a"]}') == ["a", "b", "a"]
    assert read_hint(b'{"snapshot":"a"}') == ["a"]
    for data in (b"", b"[]", b"{}", b"x", b'{"snapshot":1}', b'"a"'):
        assert read_hint(data) == []


def test_a_snapshots_number_is_in_its_name() -> None:
    assert snapshot_number("snap/000000000064.0123456789abcdef.snap") == 64
    with pytest.raises(ValueError, match="not the key of a snapshot"):
        snapshot_number("snap/64")
