"""Ray's Jobs API, as far as a study's job needs it: submit once, look, stop, and read what was printed.

It is spoken over plain HTTP, so that who launches needs no Ray, and no Ray of the cluster's version. A job that was
stopped is never deleted: its id stays taken, so that nobody mistakes a new job for it. This module must not know what a
job does.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.execution.cluster import ASKS
from tune_tasks.execution.environment import refused
from tune_tasks.execution.shipping import pack

if TYPE_CHECKING:
    import requests

Condition: TypeAlias = Literal["absent", "pending", "running", "succeeded", "failed", "stopped"]
ALIVE: frozenset[Condition] = frozenset({"pending", "running"})

_LAST_CHARACTERS = 4_000
_SECONDS, _UPLOAD_SECONDS = 20.0, 300.0
"""That an answer may take."""
_MISSING, _BUSY = 404, 500
_REFUSALS = frozenset({401, 403})
_NO_ENVIRONMENT = "runtime_env setup failed: "


class Job(NamedTuple):
    """How a job stands; `exit_code` is that of its process, None where it has none or was killed with its node."""

    condition: Condition
    exit_code: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Where a cluster takes jobs, and what it takes to be let in; the headers hold secrets and are never shown.

    `verify` is the path of the certificates that its own is checked against, or whether it is checked at all.
    """

    address: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: bool | str = True

    @classmethod
    def of(cls, address: str | None) -> Dashboard:
        """The one at an address, by default that in the environment, with Ray's own variables for the rest.

        These are RAY_API_SERVER_ADDRESS or RAY_ADDRESS, RAY_JOB_HEADERS (JSON), RAY_AUTH_MODE, RAY_AUTH_TOKEN and
        RAY_AUTH_TOKEN_PATH. Raises `ConfigError` where there is none.
        """
        given = address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")
        if given is None or not given.startswith(("http://", "https://")):
            raise ConfigError(
                f"execution.address: {given!r} is not allowed for runner: job; give the address of the cluster's "
                "dashboard, as http://head:8265"
            )
        return cls(given.rstrip("/"), {**_headers(), **_bearer()})


class Jobs:
    """The jobs of one cluster."""

    def __init__(self, dashboard: Dashboard | str | None, *, variables: Mapping[str, str] | None = None) -> None:
        """`dashboard`, or its address, http://head:8265. Raises `ConfigError` where that is none.

        `variables` of the environment go to each job that is submitted, and are never shown: credentials of its store.
        """
        import requests  # a part of a second that only a launch needs

        self._dashboard = dashboard if isinstance(dashboard, Dashboard) else Dashboard.of(dashboard)
        self._variables = dict(variables or {})
        self._session = requests.Session()
        self._session.headers.update(self._dashboard.headers)
        self._session.verify = self._dashboard.verify

    def version(self) -> str:
        """The version of Ray that the cluster runs. Raises `Unavailable`, and `ConfigError` for what is no Ray."""
        answer = self._ask("GET", "/api/version")
        try:
            answer.raise_for_status()
            return str(answer.json()["ray_version"])
        except Exception as error:
            raise ConfigError(
                f"execution.address: what answers at {self._dashboard.address} is no Ray dashboard: {_told(answer)}"
            ) from error

    def look(self, name: str) -> Job:
        """Tells how a job stands. Raises `Unavailable`."""
        answer = self._ask("GET", f"/api/jobs/{name}")
        if answer.status_code == _MISSING:
            return Job("absent")
        if not answer.ok:
            raise Unavailable(f"job {name} cannot be looked for at {self._dashboard.address}: {_told(answer)}")
        info = answer.json()
        message = info.get("message") or ""
        if message.startswith(_NO_ENVIRONMENT):  # its driver could not say so itself: the next job would end likewise
            error = refused(message.removeprefix(_NO_ENVIRONMENT))
            return Job("failed", error.exit_code, f"ConfigError: {error}")
        code = re.search(r"exit code (-?\d+)", message)
        return Job(cast("Condition", info["status"].lower()), int(code[1]) if code else None, message)

    def submit(self, name: str, entrypoint: str, runtime_env: dict[str, Any]) -> bool:
        """Submits a job; false where there is one of that name. Raises `ConfigError` for what Ray refuses."""
        shipped = self._shipped(runtime_env)
        answer = self._ask(
            "POST", "/api/jobs/", json={"entrypoint": entrypoint, "submission_id": name, "runtime_env": shipped}
        )
        if answer.ok:
            return True
        if self.look(name).condition != "absent":
            return False
        if answer.status_code >= _BUSY:  # a head that is still starting has no agent that takes jobs
            raise Unavailable(f"the Ray at {self._dashboard.address} takes no job now: {_told(answer)}")
        raise ConfigError(f"environment: Ray refuses the job at {self._dashboard.address}: {_told(answer)}")

    def stop(self, name: str) -> bool:
        """Asks a job to stop; false where it is over, or was never there."""
        if self.look(name).condition not in ALIVE:
            return False
        answer = self._ask("POST", f"/api/jobs/{name}/stop")
        if not answer.ok:
            raise Unavailable(f"job {name} cannot be stopped at {self._dashboard.address}: {_told(answer)}")
        return bool(answer.json()["stopped"])

    def last_words(self, name: str) -> str:
        """The end of what a job printed; empty where that cannot be had."""
        with contextlib.suppress(Exception):  # it only explains an error that is known already
            return str(self._ask("GET", f"/api/jobs/{name}/logs").json()["logs"])[-_LAST_CHARACTERS:].strip()
        return ""

    def _shipped(self, runtime_env: dict[str, Any]) -> dict[str, Any]:
        """A runtime environment whose working directory has been sent."""
        shipped = {name: value for name, value in runtime_env.items() if name != "excludes"}
        if self._variables:
            shipped["env_vars"] = {**shipped.get("env_vars", {}), **self._variables}
        folder = shipped.get("working_dir")
        if folder is not None and "://" not in folder:
            shipped["working_dir"] = self._upload(*pack(Path(folder), runtime_env.get("excludes", ())))
        return shipped

    def _upload(self, name: str, data: bytes) -> str:
        """Sends a package unless it is there; gives its URI."""
        place = f"/api/packages/gcs/{name}"
        if self._ask("GET", place).status_code == _MISSING:
            answer = self._ask("PUT", place, data=data, timeout=_UPLOAD_SECONDS)
            if not answer.ok:
                raise Unavailable(f"the working directory cannot be sent to {self._dashboard.address}: {_told(answer)}")
        return f"gcs://{name}"

    def _ask(self, method: str, path: str, *, timeout: float = _SECONDS, **options: Any) -> requests.Response:
        """One request. Raises `Unavailable` where nothing answers, and `ConfigError` where it does not let us in."""
        import requests

        address = self._dashboard.address
        try:
            answer = self._session.request(method, f"{address}{path}", timeout=timeout, **options)
        except requests.RequestException as error:
            raise Unavailable(f"execution.address: no Ray dashboard answers at {address}: {error}") from error
        if answer.status_code in _REFUSALS:
            raise ConfigError(
                f"execution.address: the Ray at {self._dashboard.address} refuses: {_told(answer)}; {ASKS}"
            )
        return answer


def _told(answer: requests.Response) -> str:
    """The last line of what a server said, which is the error of a traceback."""
    lines = answer.text.strip().splitlines()
    return lines[-1] if lines else f"status {answer.status_code}"


def _headers() -> dict[str, str]:
    """What this process is told to send along, by Ray's own variable."""
    try:
        found = json.loads(os.environ.get("RAY_JOB_HEADERS") or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError('RAY_JOB_HEADERS: must be a JSON object, as {"name": "value"}; it may be secret: not shown')
    return found


def _bearer() -> dict[str, str]:
    """The token by which Ray knows its own, where this process is to show one."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return {}
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    token = os.environ.get("RAY_AUTH_TOKEN") or (path.read_text().strip() if path.is_file() else "")
    return {"Authorization": f"Bearer {token}"} if token else {}
