"""Pickled files are found by what is in them, wherever they hide, and nothing else is taken for one."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tune_tasks.errors import ConfigError
from tune_tasks.registry.pickles import pickled, refuse


def dumped(protocol: int = 4) -> bytes:
    return pickle.dumps({"weights": OrderedDict()}, protocol=protocol)


def in_zip(path: Path, name: str, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, data)


PICKLED: dict[str, Callable[[Path], object]] = {
    **{f"protocol-{number}.bin": lambda path, n=number: path.write_bytes(dumped(n)) for number in range(6)},
    "by-name.pkl": lambda path: path.write_bytes(b"?"),
    "by-name.joblib": lambda path: path.write_bytes(b"?"),
    "torch.pt": lambda path: in_zip(path, "archive/data.pkl", dumped(2)),
    "torch-old.pth": lambda path: path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + dumped(2)),
    "renamed.zip": lambda path: in_zip(path, "inside.dat", dumped()),
    "objects.npy": lambda path: np.save(path, np.array([{}, 1], dtype=object), allow_pickle=True),
    "objects.npz": lambda path: np.savez(path, allow_pickle=True, a=np.array([{}], dtype=object)),
    "gzip.z": lambda path: path.write_bytes(gzip.compress(dumped())),
    "bz2.z": lambda path: path.write_bytes(bz2.compress(dumped())),
    "xz.z": lambda path: path.write_bytes(lzma.compress(dumped())),
    "zlib.z": lambda path: path.write_bytes(zlib.compress(dumped())),
}
PLAIN: dict[str, bytes] = {
    "empty": b"",
    "model.json": json.dumps({"a": [1, 2]}).encode(),
    "table.csv": b"column,other\n1,2\n",
    "words.txt": b"cat\ndog\nbird\n",
    "code.py": b"import os\n",
    "licence.txt": b"(c) copyright\nnobody\n",
    "number.txt": b"0.5",
    "text.gz": gzip.compress(b"hello"),
    "broken.gz": b"\x1f\x8bno",
    "random.bin": bytes(range(200, 256)) * 9,
}


@pytest.mark.parametrize("name", PICKLED)
def test_a_pickle_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "deep").mkdir()
    PICKLED[name](tmp_path / "deep" / name)
    assert list(pickled(tmp_path)) == [f"deep/{name}"]


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_no_pickle_is_let_through(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PLAIN[name])
    assert list(pickled(tmp_path)) == []


def test_arrays_of_numbers_are_let_through(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(4.0))
    np.savez(tmp_path / "b.npz", a=np.arange(4), b=np.zeros((2, 2)))
    assert list(pickled(tmp_path)) == []


def test_the_refusal_names_the_files_and_the_risk_and_the_spec_may_accept_it(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.bin").write_bytes(dumped())
    with pytest.raises(ConfigError, match=r"0\.bin, 1\.bin, 2\.bin and 1 more .*runs whatever code .*pickle: true"):
        refuse(tmp_path, allowed=False)
    refuse(tmp_path, allowed=True)
