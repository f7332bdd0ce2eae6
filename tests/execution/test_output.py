"""Output by file descriptor, in a process of its own, which it keeps: local and for a store that is elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tune_tasks.execution.output import claim, spare_path

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
