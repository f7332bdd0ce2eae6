"""Ray's Jobs API, as far as a study's job needs it: submit once, look, stop, and read what was printed.

A job that was stopped is never deleted: its id stays taken, so that nobody mistakes a new job for it. This module must
not know what a job does.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from tune_tasks.errors import ConfigError, Unavailable
from tune_tasks.execution.cluster import ASKS

Condition: TypeAlias = Literal["absent", "pending", "running", "succeeded", "failed", "stopped"]
ALIVE: frozenset[Condition] = frozenset({"pending", "running"})

_LAST_CHARACTERS = 4_000


class Job(NamedTuple):
    """How a job stands; `exit_code` is that of its process, None where it has none or was killed with its node."""

    condition: Condition
    exit_code: int | None = None
    message: str = ""


class Jobs:
    """The jobs of one cluster."""

    def __init__(self, address: str | None) -> None:
        """`address`: of the cluster's dashboard, http://head:8265. Raises `Unavailable` where nothing answers there."""
        self._address = address or "the address in RAY_ADDRESS"
        try:
            from ray.job_submission import JobSubmissionClient

            with self._answered():
                self._client = JobSubmissionClient(address)
        except (ImportError, RuntimeError) as error:
            raise ConfigError(f"execution.runner: jobs cannot be submitted from here: {error}") from error

    def look(self, name: str) -> Job:
        """Tells how a job stands. Raises `Unavailable`."""
        with self._answered():
            try:
                info = self._client.get_job_info(name)
            except RuntimeError as error:
                if "404" in str(error) or "does not exist" in str(error):
                    return Job("absent")
                raise Unavailable(f"job {name} cannot be looked for at {self._address}: {error}") from error
        message = info.message or ""
        code = re.search(r"exit code (-?\d+)", message)
        return Job(cast("Condition", str(info.status.value).lower()), int(code[1]) if code else None, message)

    def submit(self, name: str, entrypoint: str, runtime_env: dict[str, Any]) -> bool:
        """Submits a job; false where there is one of that name. Raises `ConfigError` for what Ray refuses."""
        with self._answered():
            try:
                self._client.submit_job(entrypoint=entrypoint, submission_id=name, runtime_env=runtime_env)
            except (RuntimeError, ValueError, TypeError) as error:
                if self.look(name).condition != "absent":
                    return False
                if "status code 5" in str(error):  # a head that is still starting has no agent that takes jobs
                    raise Unavailable(f"the Ray at {self._address} takes no job now: {error}") from error
                raise ConfigError(f"environment: Ray refuses the job at {self._address}: {error}") from error
        return True

    def stop(self, name: str) -> bool:
        """Asks a job to stop; false where it is over, or was never there."""
        if self.look(name).condition not in ALIVE:
            return False
        with self._answered():
            return bool(self._client.stop_job(name))

    def last_words(self, name: str) -> str:
        """The end of what a job printed; empty where that cannot be had."""
        with contextlib.suppress(Exception):  # it only explains an error that is known already
            return str(self._client.get_job_logs(name))[-_LAST_CHARACTERS:].strip()
        return ""

    @contextlib.contextmanager
    def _answered(self) -> Iterator[None]:
        """Turns what the connection raises into `Unavailable`."""
        import requests

        try:
            yield
        except (ConnectionError, requests.RequestException) as error:
            raise Unavailable(f"execution.address: no Ray dashboard answers at {self._address}: {error}") from error
        except Exception as error:
            if type(error).__name__ != "AuthenticationError":  # by name: Ray before 2.50 has no such class
                raise
            told = " ".join(str(error).partition(". Ensure")[0].split())
            raise ConfigError(f"execution.address: the Ray at {self._address} refuses: {told}; {ASKS}") from error
