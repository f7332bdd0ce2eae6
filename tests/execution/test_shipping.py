"""The package of a working directory: what it holds, and how it is named."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from tune_tasks.errors import ConfigError
from tune_tasks.execution import shipping
from tune_tasks.execution.shipping import pack


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def names(data: bytes) -> set[str]:
    return set(zipfile.ZipFile(io.BytesIO(data)).namelist())


def test_a_package_holds_the_files_but_those_that_are_excluded_or_ignored(tmp_path: Path) -> None:
    write(tmp_path, train="1", deep__module="2", studies__log="3", big__data="4", deep__made="5", kept__made="6")
    (tmp_path / ".rayignore").write_text("/big/\n")
    (tmp_path / "deep" / ".gitignore").write_text("made\n")
    (tmp_path / "gone").symlink_to("nowhere")
    _, data = pack(tmp_path, ["studies"])
    assert names(data) == {"train", "deep/module", "kept/made", ".rayignore", "deep/.gitignore"}


def test_the_same_files_have_the_same_name_whenever_they_were_written(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", b="x", a="y"), write(tmp_path / "two", a="y", b="x")
    os.utime(two / "a", (1, 1))
    assert pack(one, []) == pack(two, [])
    (two / "a").write_text("z")
    assert pack(one, [])[0] != pack(two, [])[0]


def test_a_script_can_be_run_where_it_is_unpacked(tmp_path: Path) -> None:
    write(tmp_path, script="#!/bin/sh\n")
    (tmp_path / "script").chmod(0o755)
    (info,) = zipfile.ZipFile(io.BytesIO(pack(tmp_path, [])[1])).infolist()
    assert info.external_attr >> 16 & 0o777 == 0o755


def test_a_folder_larger_than_ray_takes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "_MOST", 2**20)
    (tmp_path / "weights").write_bytes(os.urandom(2**20))
    with pytest.raises(ConfigError, match=r"working_dir: .* is larger than 1 MiB, which is the most that Ray takes"):
        pack(tmp_path, [])
