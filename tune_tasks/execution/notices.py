"""Asks the cloud whether this node is about to go away, some seconds or minutes ahead.

As Amazon's pages "Spot Instance interruption notices", "EC2 instance rebalance recommendations" and "Use the Instance
Metadata Service to access instance metadata" say it, and Google's "Create and use preemptible VMs" and "Monitor and
plan for a host maintenance event". Where nobody answers there is no notice. This module must not end anything.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.error import HTTPError

from tune_tasks.errors import invalid
from tune_tasks.spec import resolve

logger = logging.getLogger(__name__)

_TIMEOUT = 1.0
"""Seconds. The address is on this very machine, where it is at all."""
_RAREST = 300.0
"""Seconds between two questions to an address that does not answer."""
_TOKEN_SECONDS = 21_600
_LONGEST = 1 << 16
"""Bytes of an answer that are read."""
_VENDOR = Path("/sys/class/dmi/id/sys_vendor")


class Notice(Protocol):
    """Knows whether this node is about to go away."""

    def ask(self) -> str | None:
        """Says why it is, or None. Raises `OSError`, or whatever else, where there is no answer."""
        ...


class Aws:
    """Spot instances of EC2: two minutes ahead; with `rebalance` also the earlier hint that it may come to that."""

    def __init__(self, *, rebalance: bool = False) -> None:
        self._rebalance = rebalance
        self._base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
        self._token: str | None = None

    def ask(self) -> str | None:
        """Asks for the instance action, and for the recommendation if told so."""
        action = self._get("spot/instance-action")
        if action is not None:
            told = json.loads(action)
            return f"EC2 will {told['action']} this spot instance at {told['time']}"
        advice = self._get("events/recommendations/rebalance") if self._rebalance else None
        return (
            None
            if advice is None
            else f"EC2 recommends since {json.loads(advice)['noticeTime']} to leave this instance"
        )

    def _get(self, path: str) -> str | None:
        """Reads one item of metadata; None where there is no such item. A token may expire or be of another boot."""
        for again in (True, False):
            if self._token is None:
                headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
                self._token = _read(f"{self._base.rstrip('/')}/latest/api/token", headers, method="PUT")
            try:
                url = f"{self._base.rstrip('/')}/latest/meta-data/{path}"
                return _read(url, {"X-aws-ec2-metadata-token": self._token})
            except HTTPError as error:
                if error.code == 404:
                    return None
                self._token = None
                if error.code != 401 or not again:
                    raise
        return None


class Google:
    """Preemptible and Spot VMs of Google: 30 seconds ahead; and hosts whose maintenance ends the VM."""

    def __init__(self) -> None:
        host = os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
        self._base = f"http://{host}/computeMetadata/v1/instance"

    def ask(self) -> str | None:
        """Asks whether it was preempted, and for the maintenance event. A live migration is none: the VM goes on."""
        if self._get("preempted").upper() == "TRUE":
            return "Google preempted this VM"
        event = self._get("maintenance-event")
        return f"Google announced {event} for this VM" if event.upper().startswith("TERMINATE") else None

    def _get(self, name: str) -> str:
        try:
            return _read(f"{self._base}/{name}", {"Metadata-Flavor": "Google"}).strip()
        except HTTPError as error:
            if error.code == 404:
                return ""
            raise


class Asked:
    """A user's function that says why, or None."""

    def __init__(self, function: Callable[[], str | None]) -> None:
        self._function = function

    def ask(self) -> str | None:
        """Calls it."""
        return self._function()


def _of_vendor() -> Notice | None:
    try:
        vendor = _VENDOR.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return {"Amazon EC2": Aws, "Google": Google}.get(vendor, lambda: None)()


_KINDS: dict[str, Callable[[], Notice | None]] = {
    "auto": _of_vendor,
    "aws": Aws,
    "aws-rebalance": lambda: Aws(rebalance=True),
    "google": Google,
    "none": lambda: None,
}


def choose(name: str, folder: str | None = None) -> Notice | None:
    """Gives who is asked, by the name in the spec: None where nobody is. Raises `ConfigError`.

    An import string names a function without arguments; `folder` is searched for it first.
    """
    if ":" in name:
        return Asked(resolve(name, "execution.notice", folder))
    if name not in _KINDS:
        allowed = f"allowed are {', '.join(_KINDS)}, or an import string module:name"
        raise invalid("execution.notice", name, allowed, _KINDS)
    return _KINDS[name]()


class Watch:
    """Asks every few seconds, on a thread of its own, and calls `tell` with the reason once there is one.

    Who does not answer is asked less and less often, down to every five minutes.
    """

    def __init__(self, notice: Notice, tell: Callable[[str], None], every: float = 5.0) -> None:
        self._notice, self._tell, self._every = notice, tell, every
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="notice", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Asks no more; does not wait for an answer that is outstanding."""
        self._closed.set()

    def _watch(self) -> None:
        delay = self._every
        while not self._closed.is_set():
            try:
                reason = self._notice.ask()
                delay = self._every
            except Exception as error:  # noqa: BLE001  # no answer is no notice, whatever the reason
                logger.debug("no answer about this node", extra={"error": str(error)})
                reason, delay = None, min(2 * delay, max(_RAREST, self._every))
            if reason is not None and not self._closed.is_set():
                self._tell(reason)
                return
            self._closed.wait(delay)


def _read(url: str, headers: dict[str, str], method: str = "GET") -> str:
    """One request, past all proxies: the address means this machine, not the proxy's."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310  # http, by the code above
    with opener.open(request, timeout=_TIMEOUT) as answer:
        return bytes(answer.read(_LONGEST)).decode()
