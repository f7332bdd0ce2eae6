"""What runs in Ray Serve: a version that answers, and the gateway at the route that shares requests among versions.

A request that the canary fails is answered by the stable version, and counted; so a bad version costs time, and no
answer. This module must not decide what becomes of a version, and runs in Serve's processes alone.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from tune_tasks.deployment import Model, short
from tune_tasks.deployment.canary import Figures
from tune_tasks.deployment.loading import answer, load

DEPLOYMENT = "Version"
"""What the one deployment of a version's application is called."""

_TRIES = 3
_KEPT = 2000
"""Latencies of the canary that are kept, the newest."""


class Version:
    """A version of the model, loaded in a replica."""

    def __init__(self, model: Model) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="tune-tasks-")
        self._model = load(model, Path(self._scratch.name))

    def answer(self, body: bytes) -> bytes:
        """Predicts for an input in JSON."""
        return answer(self._model, body)


class Gateway:
    """Takes the requests of an endpoint to the stable version, and a share of them to the canary.

    Its configuration: `stable` and `canary` are {version, application}, or None; `share` of the requests goes to the
    canary `until` a moment, in seconds since the epoch, so that one whose watcher died does not stay; `timeout`, in
    seconds, is for one answer. A new one is taken over without a restart, between two requests.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._config: dict[str, Any] = {}
        self._handles: dict[str, Any] = {}
        self._busy: Counter[str] = Counter()
        self._forget()

    def reconfigure(self, config: dict[str, Any]) -> None:
        """Takes over a configuration; Serve calls it at the start, and whenever there is another one."""
        if config.get("canary") != self._config.get("canary"):
            self._forget()
        self._config = config

    async def __call__(self, request: Any) -> Any:
        """POST: rows in JSON, answered with predictions in JSON. GET: what is served, and how it does."""
        if request.method == "GET":
            return self._tell()
        if request.method != "POST":
            return _response(405, {"error": f"{request.method} is not allowed; POST rows as JSON, or GET"})
        body = await request.body()
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError as error:
            return _response(400, {"error": f"the body is not JSON: {error}"})
        return await self._answered(body)

    def state(self) -> dict[str, Any]:
        """The configuration, the requests under way by application, and the canary's figures."""
        return {
            "config": self._config,
            "busy": dict(self._busy),
            "figures": {"requests": self._requests, "errors": self._errors, "latencies": list(self._latencies)},
        }

    async def _answered(self, body: bytes) -> Any:
        stable, canary = self._config.get("stable"), self._config.get("canary")
        failed = None
        if canary is not None and (stable is None or self._is_due()):
            self._requests += 1
            began = time.perf_counter()
            try:
                reply = await self._ask(canary, body, tries=1)
            except Exception as error:  # noqa: BLE001  # whatever a model may raise, or Serve of a lost replica
                failed = error
            else:
                self._latencies.append(time.perf_counter() - began)
                return _response(200, reply, canary["version"])
        if stable is None:
            return _response(503, {"error": f"{self._name} has no version yet"})
        try:
            reply = await self._ask(stable, body, tries=_TRIES)
        except Exception as error:  # noqa: BLE001  # as above
            return _response(500, {"error": short(error)}, stable["version"])
        # What no version can answer is the client's doing, and says nothing of the canary.
        self._errors += failed is not None
        return _response(200, reply, stable["version"])

    async def _ask(self, version: Mapping[str, str], body: bytes, *, tries: int) -> bytes:
        """Asks a version; once more where its replica died, as a prediction changes nothing."""
        from ray.exceptions import RayActorError

        application = version["application"]
        self._busy[application] += 1
        try:
            for left in reversed(range(tries)):
                try:
                    asked = self._handle(application).answer.remote(body)
                    reply: bytes = await asyncio.wait_for(asked, self._config["timeout"])
                except RayActorError:
                    if not left:
                        raise
                else:
                    return reply
            raise AssertionError(tries)
        finally:
            self._busy[application] -= 1
            if not self._busy[application]:
                del self._busy[application]

    def _handle(self, application: str) -> Any:
        from ray import serve

        if application not in self._handles:
            self._handles[application] = serve.get_deployment_handle(DEPLOYMENT, application, _check_exists=False)
        return self._handles[application]

    def _is_due(self) -> bool:
        """Every so many-th request exactly, so that a share of a tenth is not none or three in ten by chance."""
        if time.time() > self._config["until"]:
            return False
        self._owed += self._config["share"]
        if self._owed < 1:
            return False
        self._owed -= 1
        return True

    def _forget(self) -> None:
        self._requests, self._errors, self._owed = 0, 0, 0.0
        self._latencies: deque[float] = deque(maxlen=_KEPT)

    def _tell(self) -> Any:
        stable, canary = self._config.get("stable"), self._config.get("canary")
        told = {
            "name": self._name,
            "stable": stable["version"] if stable else None,
            "canary": canary["version"] if canary else None,
            "share": self._config.get("share", 0.0) if canary else 0.0,
        }
        return _response(200 if stable else 503, told)


def figures(state: Mapping[str, Any]) -> Figures:
    """The canary's figures, as `Gateway.state` tells them."""
    return Figures(**state["figures"])


def _response(status: int, content: Any, version: str | None = None) -> Any:
    from starlette.responses import Response

    body = content if isinstance(content, bytes) else orjson.dumps(content)
    headers = {"x-model-version": version} if version else None
    return Response(body, status, headers, media_type="application/json")
