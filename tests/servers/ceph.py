"""Ceph's object gateway: a production S3 server whose "create if absent" is an exclusive create of its own store.

One monitor, one storage daemon that keeps everything in memory, and the gateway, all on the loopback; no manager, no
systemd, no authentication between them, and nothing outside `home`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tests.servers import ACCESS, SECRET
from tests.servers.processes import answers, free_port, present, program, start, stop, wait_until
from tests.servers.s3 import S3Server

PACKAGES = ("radosgw", "ceph-mon", "ceph-osd", "ceph-mgr")
PROGRAMS = ("monmaptool", "ceph-mon", "ceph", "ceph-osd", "radosgw", "radosgw-admin")
MEMORY = 4 << 30
"""Bytes that the storage daemon may hold; what was deleted stays for a second or two."""
_STARTS = 10
"""Starts of the storage daemon: one in six ends at once with "wrong fsid", before it has learned whose daemon it is."""

_SETTINGS = """
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{monitor}
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
ms bind msgr1 = true
ms bind msgr2 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
admin socket =
run dir = {home}
log to file = false
log to stderr = true
err to stderr = true
# A change of the map waits for this long for others to go with it; there are none, and starting makes a dozen.
paxos propose interval = 0.02
paxos min wait = 0.01
mon allow pool size one = true
mon warn on pool no redundancy = false
# A test machine's disk may be as full as it likes.
mon data avail crit = 1
mon osd full ratio = .99
mon osd nearfull ratio = .98
mon osd backfillfull ratio = .985
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
[mon.a]
mon data = {home}/mon
[osd]
osd data = {home}/osd
osd objectstore = memstore
memstore device bytes = {memory}
memstore page set = false
osd class load list = *
osd class default list = *
[client.rgw.a]
rgw data = {home}/rgw
# Without tcp_nodelay a GET takes 46 ms instead of 2.
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw dns name = 127.0.0.1
rgw thread pool size = 64
rgw enable usage log = false
rgw gc obj min wait = 1
rgw gc processor period = 5
rgw gc processor max time = 5
"""


@dataclass(frozen=True)
class Gateway(S3Server):
    """A gateway that can be killed and started again alone: what was acknowledged is with the storage daemon."""

    home: Path
    processes: list[subprocess.Popen[bytes]]

    def start(self) -> None:
        """Starts the gateway, and returns when it answers."""
        command = [_program("radosgw"), "--foreground", "-c", str(self.home / "ceph.conf"), "-n", "client.rgw.a"]
        self.processes.append(start(command, self.home / "radosgw.log"))
        wait_until(lambda: answers(self.url), self.processes[-1], self.home / "radosgw.log")

    def kill(self) -> None:
        """Ends the gateway as kill -9 does."""
        stop(self.processes[-1])


def installed() -> bool:
    """Whether this machine can run it."""
    return all(present(name) for name in PROGRAMS)


@contextmanager
def radosgw(home: Path) -> Iterator[Gateway]:
    """Runs a cluster of one; everything that it holds is gone with the block."""
    cluster = _Cluster(home, monitor=free_port(), gateway=free_port())
    try:
        cluster.serve_monitor()
        cluster.serve_storage()
        gateway = Gateway(f"http://127.0.0.1:{cluster.gateway}", home, cluster.processes)
        gateway.start()
        user = ("--uid", "tests", "--display-name", "tests", "--access-key", ACCESS, "--secret", SECRET)
        cluster.run("radosgw-admin", "user", "create", *user)
        gateway.make_bucket()
        yield gateway
    finally:
        for process in reversed(cluster.processes):
            stop(process)


class _Cluster:
    """The daemons behind a gateway."""

    def __init__(self, home: Path, *, monitor: int, gateway: int) -> None:
        for name in PROGRAMS:
            _program(name)  # all of them, before anything is started
        self.home, self.monitor, self.gateway, self.id = home, monitor, gateway, str(uuid4())
        self.processes: list[subprocess.Popen[bytes]] = []
        for folder in ("mon", "osd", "rgw"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        text = _SETTINGS.format(fsid=self.id, monitor=monitor, port=gateway, home=home, memory=MEMORY)
        (home / "ceph.conf").write_text(text)

    def serve_monitor(self) -> None:
        monitors = str(self.home / "monitors")
        address = ("--addv", "a", f"[v1:127.0.0.1:{self.monitor}]")
        self.run("monmaptool", "--create", "--clobber", "--fsid", self.id, *address, monitors)
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors)
        self._serve("ceph-mon", "-i", "a")

    def serve_storage(self) -> None:
        storage = str(uuid4())
        self.run("ceph", "osd", "new", storage)
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", storage)
        for _ in range(_STARTS):
            process = self._serve("ceph-osd", "-i", "0")
            while process.poll() is None:
                if json.loads(self.run("ceph", "osd", "stat", "--format", "json"))["num_up_osds"]:
                    return
        raise RuntimeError(
            f"ceph-osd ended {_STARTS} times; it said:\n{(self.home / 'ceph-osd.log').read_text()[-4000:]}"
        )

    def run(self, name: str, *arguments: str) -> str:
        """Runs a command to its end and returns what it printed. Raises `RuntimeError` where it fails."""
        command = [_program(name), *self._configured(name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-4000:]}")
        return done.stdout

    def _serve(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [_program(name), *self._configured(name), "--foreground", *arguments]
        process = start(command, self.home / f"{name}.log")
        self.processes.append(process)
        return process

    def _configured(self, name: str) -> tuple[str, ...]:
        return () if name == "monmaptool" else ("-c", str(self.home / "ceph.conf"))


def _program(name: str) -> str:
    return program(name, package=f"the Debian packages {' '.join(PACKAGES)}")
