"""The fingerprint of data changes with its files and with nothing else, wherever it lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import fsspec
import pytest

import tune_tasks as tt
from tune_tasks.errors import ConfigError


def data(folder: Path) -> Path:
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "a.csv").write_text("1,2\n")
    (folder / "b.csv").write_text("3,4\n")
    return folder


def test_a_copy_has_the_same_and_any_change_another(tmp_path: Path) -> None:
    first = tt.fingerprint(data(tmp_path / "one"))
    copy = Path(shutil.copytree(tmp_path / "one", tmp_path / "two"))
    (copy / "b.csv").touch()
    assert tt.fingerprint(copy) == first
    assert tt.fingerprint(f"file://{copy}") == first
    seen = {first}
    for change in (
        lambda: (copy / "b.csv").write_text("3,5\n"),
        lambda: (copy / "b.csv").rename(copy / "c.csv"),
        lambda: (copy / "d.csv").write_text(""),
        lambda: (copy / "d.csv").unlink() or (copy / "train" / "a.csv").rename(copy / "a.csv"),
    ):
        change()
        seen.add(tt.fingerprint(str(copy)))
    assert len(seen) == 5


def test_one_file_has_one_too(tmp_path: Path) -> None:
    folder = data(tmp_path)
    assert tt.fingerprint(folder / "b.csv") != tt.fingerprint(folder / "train" / "a.csv")


def test_names_do_not_run_into_contents(tmp_path: Path) -> None:
    for name, files in {"one": ("a", "b"), "two": ("ab",)}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("")
    assert tt.fingerprint(tmp_path / "one") != tt.fingerprint(tmp_path / "two")


def test_data_behind_a_url_is_listed(tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    system.pipe({"/data-of-a-test/a.csv": b"1", "/data-of-a-test/b/c.csv": b"2"})
    before = tt.fingerprint("memory://data-of-a-test")
    assert tt.fingerprint("memory://data-of-a-test") == before
    system.pipe("/data-of-a-test/b/c.csv", b"3")
    assert tt.fingerprint("memory://data-of-a-test") != before


def test_a_digest_that_the_listing_has_spares_reading_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    listing = {"/tagged/a": {"name": "/tagged/a", "type": "file", "ETag": "1"}}
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *_, **__: listing)
    before = tt.fingerprint("memory://tagged")  # there is no such file to read
    listing["/tagged/a"]["ETag"] = "2"
    assert tt.fingerprint("memory://tagged") != before


@pytest.mark.parametrize("url", ["{}/nothing", "{}", "memory://nothing-there", "nosuch://bucket/data"])
def test_where_there_is_no_data_the_reason_is_told(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"^data: "):
        tt.fingerprint(url.format(tmp_path))
