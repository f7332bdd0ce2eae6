"""Output by file descriptor, in a process of its own, which it keeps: local and for a store that is elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tune_tasks.execution.output import Tee, claim, spare_path
from tune_tasks.execution.shorten import _LEAST, Shortener

PROGRAM = """
import ctypes, os, shutil, sys
from pathlib import Path
from tune_tasks.execution import output

url, kept = sys.argv[1], Path(sys.argv[2])

def upload(key, file, *, finished):
    number = len(list(kept.iterdir()))
    shutil.copy(file, kept / f"{number} {key.replace('/', ' ')} {finished}")
    if finished:
        file.unlink()

capture = output.Capture(url, "w1", upload)
print("before the first")
capture.begin(0, 1)
capture.end()
capture.begin(1, 1)
print("one", flush=True); os.system("echo two; echo three >&2")
capture.look()
print("four", flush=True)
capture.look()
capture.end()
print("between two attempts")
capture.begin(2, 3)
ctypes.CDLL(None).printf(b"five")
capture.end()
capture.close()
"""


def run(url: str, kept: Path) -> None:
    kept.mkdir()
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, url, str(kept)], capture_output=True, text=True, check=False, env=buffered
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def test_each_attempt_has_its_own_file_in_a_local_store(tmp_path: Path) -> None:
    run(str(tmp_path / "study"), tmp_path / "kept")
    assert contents(tmp_path / "study" / "logs") == {"000001-1.txt": "one\ntwo\nthree\nfour\n", "000002-3.txt": "five"}
    assert contents(tmp_path / "kept") == {}


def test_what_grows_is_uploaded_now_and_then_and_at_the_end_for_another_store(tmp_path: Path) -> None:
    run("s3://bucket/study", tmp_path / "kept")
    assert contents(tmp_path / "kept") == {
        "0 logs 000001-1.txt False": "one\ntwo\nthree\n",  # and not again so soon after
        "1 logs 000001-1.txt True": "one\ntwo\nthree\nfour\n",
        "2 logs 000002-3.txt True": "five",
    }


def test_a_lost_workers_output_goes_to_its_attempt(tmp_path: Path) -> None:
    url = str(tmp_path)
    spare = spare_path(tmp_path, "w1")
    spare.parent.mkdir()
    spare.write_text("last words")
    claim(url, "w1", 4, 2)
    assert contents(tmp_path / "logs") == {"000004-2.txt": "last words"}
    spare.write_text("between two attempts")
    claim(url, "w1")
    spare.touch()
    claim(url, "w1", 5, 1)
    claim(url, "w1", 5, 1)
    assert contents(tmp_path / "logs") == {"000004-2.txt": "last words"}


FLOOD = """
import shutil, subprocess, sys, time
from pathlib import Path
from tune_tasks.execution import output

url, kept = sys.argv[1], Path(sys.argv[2])

def upload(key, file, *, finished):
    if finished:
        shutil.move(file, kept / "finished")

def size(file):
    return file.stat().st_size if file.exists() else 0

capture = output.Capture(url, "w1", upload)
for trial in range(2):
    capture.begin(trial, 1)
    print("the beginning", flush=True)
    child = subprocess.Popen([sys.executable, "-c", "for n in range(int(1e6)): print(f'{n:0199}')"])
    most = 0
    while child.poll() is None:
        capture.look()
        most = max(most, *map(size, [*Path(url).glob("logs/*"), capture._spare]))
        time.sleep(0.01)
    print("the end", flush=True)
    capture.end()
    assert most < 100 << 20, most
capture.close()
"""


MIB8 = 8 << 20
WHOLE = 200_000_000 + len("the beginning\nthe end\n")


def check_ends(text: bytes) -> int:
    """The log of a flood is its two ends, and says how much is missing; gives how much it does not account for."""
    first, line, last = text[:MIB8], *text[MIB8:].split(b"\n", 2)[1:]
    assert MIB8 <= len(last) <= MIB8 + _LEAST, "so little more is not worth a cut"
    told = re.fullmatch(rb"\.\.\. ([\d,]+) bytes are left out here \.\.\.", line)
    assert told is not None, line
    assert first.startswith(b"the beginning\n00")
    assert last.endswith(b"0999998\n%0199d\nthe end\n" % 999_999)
    return WHOLE - MIB8 - len(last) - int(told[1].replace(b",", b""))


@pytest.mark.slow
def test_the_log_of_an_attempt_that_prints_without_end_is_its_two_ends(tmp_path: Path) -> None:
    """200 MB by a subprocess that never stops to let us cut, and a second attempt after it."""
    done = subprocess.run([sys.executable, "-c", FLOOD, str(tmp_path), str(tmp_path)], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    for name in ("000000-1", "000001-1"):
        assert 0 <= check_ends((tmp_path / "logs" / f"{name}.txt").read_bytes()) < 8 << 20, "the instants of cuts"


def test_the_log_of_a_store_that_is_elsewhere_is_short_too(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FLOOD, "s3://a/b", str(tmp_path)], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert 0 <= check_ends((tmp_path / "finished").read_bytes()) < 8 << 20, "the instants of cuts"


def test_what_python_prints_without_end_is_kept_short_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", (tmp_path / "screen").open("w"))
    tee = Tee(str(tmp_path), lambda *_, **__: None)
    tee.begin(0, 1)
    print("the beginning")  # noqa: T201  # it is what is tested
    most = 0
    for number in range(1_000_000):
        print(f"{number:0199}")  # noqa: T201
        if number % 10_000 == 0:
            most = max(most, (tmp_path / "logs" / "000000-1.txt").stat().st_size)
    print("the end")  # noqa: T201
    tee.end()
    assert most < 50 << 20
    kept = (tmp_path / "logs" / "000000-1.txt").read_bytes()
    assert check_ends(kept) == 0
    numbers = [int(number) for number in kept[-MIB8:].splitlines()[1:-1]]
    assert numbers == list(range(numbers[0], 1_000_000)), "the end is whole"


def test_a_log_of_an_ordinary_size_is_left_as_it_is(tmp_path: Path) -> None:
    file = (tmp_path / "log").open("ab", buffering=0)
    cut = Shortener()
    file.write(bytes(2 * MIB8 + 100))
    cut.cut(file.fileno())
    assert (file.tell(), (tmp_path / "log").stat().st_size, cut.left_out) == (2 * MIB8 + 100, 2 * MIB8 + 100, 0)
