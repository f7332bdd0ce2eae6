"""Azurite: the emulator of Azure's blob storage that Microsoft publishes."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tests.servers import ACCESS, BUCKET, SECRET
from tests.servers.processes import INSTALLED, answers, free_port, present, program, running, wait_until

PLACES = (INSTALLED / "node_modules/.bin/azurite-blob",)
KEY = base64.b64encode(SECRET.encode()).decode()


@dataclass(frozen=True)
class AzureServer:
    """A server that answers at `url`."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to reach the server."""
        account = f"DefaultEndpointsProtocol=http;AccountName={ACCESS};AccountKey={KEY}"
        return {"AZURE_STORAGE_CONNECTION_STRING": f"{account};BlobEndpoint={self.url}/{ACCESS};"}

    def place(self) -> str:
        """The URL of a place in the container that nothing else uses."""
        return f"abfs://{BUCKET}/{uuid4().hex}"

    def make_container(self) -> None:
        """Creates the container in which tests work."""
        from azure.storage.blob import BlobServiceClient

        with BlobServiceClient.from_connection_string(self.environment["AZURE_STORAGE_CONNECTION_STRING"]) as client:
            client.create_container(BUCKET)


def installed() -> bool:
    """Whether this machine can run it."""
    return present("azurite-blob", places=PLACES)


@contextmanager
def azurite(home: Path) -> Iterator[AzureServer]:
    """Runs a server that keeps its blobs below `home`."""
    command = program("azurite-blob", package="the npm package azurite", places=PLACES)
    node = program("node", package="the Debian package nodejs")
    port = free_port()
    server, log = AzureServer(f"http://127.0.0.1:{port}"), home / "azurite.log"
    listening = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(home / "blobs")]
    quiet = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    with running(
        [node, command, *listening, *quiet], log, environment={"AZURITE_ACCOUNTS": f"{ACCESS}:{KEY}"}
    ) as process:
        wait_until(lambda: answers(server.url), process, log)
        server.make_container()
        yield server
