"""The applications of one endpoint on Ray Serve: the gateway, and one for each version; started, asked, taken away.

This module must not decide which version gets the requests, and everything it does may be done again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import orjson

from tune_tasks.deployment import CheckFailed, Model, Predict, short
from tune_tasks.deployment.canary import Figures
from tune_tasks.deployment.gateway import DEPLOYMENT, Gateway, Version
from tune_tasks.deployment.loading import dump
from tune_tasks.errors import ConfigError, TuneError, Unavailable

Named = dict[str, str]
"""A version at an endpoint: its version, digest and application."""

_PAUSE = 0.2
_IDLE = 2.0
"""Seconds for a version to end; it goes only when the gateway has nothing under way there."""
_AT_ONCE = 1000
"""Requests that the gateway has under way at once; more wait in Serve's proxy."""


@contextmanager
def attached(address: str) -> Iterator[None]:
    """Attaches to the cluster for as long as it takes, and turns Ray's errors into ours."""
    from ray.exceptions import RayError

    from tune_tasks.execution import cluster  # Ray is heavy, and only this needs it

    try:
        own = cluster.attach(_found(address))
    except Unavailable as error:
        raise Unavailable(
            f"deploy.target.address: no Ray answers at {address!r}; an endpoint needs one that stays, for example "
            f"`ray start --head`. {str(error).partition(': ')[2]}"
        ) from error
    try:
        from ray import serve
        from ray.serve.exceptions import RayServeException
    except ImportError as error:
        raise ConfigError("deploy.target: Ray Serve is not installed; install tune-tasks[serve]") from error
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        serve.status()
        yield
    except TuneError:
        raise
    except (RayError, RayServeException, ConnectionError, TimeoutError) as error:
        raise Unavailable(f"deploy.target: Ray Serve at {address!r} did not do as asked: {short(error)}") from error
    finally:
        if own:
            cluster.detach()


def _found(address: str) -> str:
    """What `auto` stands for: RAY_ADDRESS, or the cluster that `ray start` began on this machine.

    To Ray it also means any other that runs here, such as one of a study, which ends with it. Raises `Unavailable`.
    """
    import ray

    if address != "auto" or ray.is_initialized():
        return address
    from ray._private.services import find_bootstrap_address

    found = os.environ.get("RAY_ADDRESS") or find_bootstrap_address(None)
    if not found:
        raise Unavailable("deploy.target.address: RAY_ADDRESS is not set, and none was started on this machine")
    return str(found)


class Endpoint:
    """One name on Serve. This process is attached to the cluster meanwhile."""

    def __init__(
        self,
        name: str,
        *,
        route: str,
        http: Mapping[str, Any],
        replica: Mapping[str, Any],
        timeout: float,
        patience: float,
    ) -> None:
        """`replica`: Serve's options of a version; `timeout` of one answer, `patience` with a start, in seconds."""
        self._name, self._route, self._http, self._replica = name, route, dict(http), dict(replica)
        self._timeout, self._patience = timeout, patience

    @property
    def url(self) -> str:
        """Where clients post."""
        host = "127.0.0.1" if self._http["host"] in {"0.0.0.0", "::"} else self._http["host"]  # noqa: S104  # as text
        return f"http://{host}:{self._http['port']}{self._route}"

    @property
    def options(self) -> dict[str, Any]:
        """What the endpoint was asked to be; where that differs, there is something to do."""
        asked = {"route": self._route, "http": self._http, "replica": self._replica, "timeout": self._timeout}
        found: dict[str, Any] = orjson.loads(orjson.dumps(asked))
        return found

    def open(self) -> None:
        """Starts Serve, unless it runs. Raises `ConfigError` where its port is taken, or it runs at another one."""
        from ray import serve
        from ray.exceptions import RayTaskError
        from ray.serve.context import _get_global_client

        if (client := _get_global_client(raise_if_no_controller_running=False)) is not None:
            runs = {name: getattr(client.http_config, name) for name in self._http}
            if runs != self._http:
                raise ConfigError(f"deploy.target: Serve runs at {_at(runs)} already, not at {_at(self._http)}")
            return
        try:
            serve.start(http_options=self._http)
        except RayTaskError as error:
            serve.shutdown()  # type: ignore[no-untyped-call]  # what was started just now has no way in
            raise ConfigError(f"deploy.target.port: {_at(self._http)} cannot be used: {short(error)}") from error

    def applications(self) -> dict[str, str]:
        """The status of each application of this endpoint."""
        return {name: application.status for name, application in self._applications().items()}

    def named(self, model: Model) -> Named:
        """A version as it is called here. Another model under the same number is another application."""
        application = f"{self._name}@{model.version}-{model.digest[:8]}"
        return {"version": model.version, "digest": model.digest, "application": application}

    def config(self) -> dict[str, Any]:
        """Who gets the requests, as the gateway has it; nothing where there is no gateway yet."""
        self._until(partial(self._is_not_going, self._name), f"{self._name} is not gone")
        if self._name not in self.applications():
            return {}
        self._wait(self._name)
        found: dict[str, Any] = self._state()["config"]
        return found

    def figures(self) -> Figures:
        """What the gateway has seen of the canary."""
        return Figures(**self._state()["figures"])

    def start(self, model: Model) -> None:
        """Brings a version up, and waits until it is; does nothing where it is as asked. Raises `CheckFailed`."""
        from ray import serve

        named = self.named(model)
        actor = self._replica["ray_actor_options"] | {"runtime_env": dict(model.runtime_env)}
        version: Any = serve.deployment(Version)
        deployment = version.options(
            name=DEPLOYMENT,
            **{**self._replica, "ray_actor_options": actor},
            max_constructor_retry_count=2,
            graceful_shutdown_wait_loop_s=_PAUSE,
            graceful_shutdown_timeout_s=_IDLE,
        )
        # With the same version Serve keeps replicas that are as asked, and restarts none.
        # It is not public for deployments in code, only for those in a file.
        deployment = deployment.options(version=_digest(model), _internal=True)
        self._run(deployment.bind(model), named["application"], None)

    def predict(self, named: Named) -> Predict:
        """Asks one version, past the gateway, as a client would: input and output are values of JSON."""
        from ray import serve

        def predict(rows: Any) -> Any:
            handle = serve.get_deployment_handle(DEPLOYMENT, named["application"])
            return orjson.loads(handle.answer.remote(dump(rows)).result(timeout_s=self._timeout))

        return predict

    def route(self, stable: Named | None, canary: Named | None = None, share: float = 0.0, until: float = 0.0) -> None:
        """Gives the requests to `stable`, and a share of them to `canary`; returns when the gateway does so."""
        from ray import serve

        config = {"stable": stable, "canary": canary, "share": share, "until": until}
        config |= {"timeout": self._timeout, "options": self.options}
        gateway: Any = serve.deployment(Gateway)
        deployment = gateway.options(
            name="Gateway",
            user_config=config,
            max_ongoing_requests=_AT_ONCE,
            ray_actor_options={"num_cpus": 0},
            graceful_shutdown_wait_loop_s=_PAUSE,
            graceful_shutdown_timeout_s=self._timeout,
        )
        # As above: with the same version, another configuration reaches the running replica, which is not restarted.
        deployment = deployment.options(version="1", _internal=True)
        self._run(deployment.bind(self._name), self._name, self._route)
        self._until(lambda: self._state()["config"] == config, "the gateway does not take its configuration")

    def settle(self, stable: Named | None, *others: Named) -> None:
        """Gives `stable` all the requests, and takes every version away but it and `others`, when it is idle."""
        if stable is not None and not self._is_at(self.config(), stable):
            self.route(stable)
        kept = {self._name, *(named["application"] for named in (stable, *others) if named)}
        for application in sorted(set(self.applications()) - kept):
            self._until(partial(self._is_idle, application), f"{application} does not become idle")
            self.remove(application)

    def remove(self, application: str) -> None:
        """Takes an application away; what it has begun it finishes."""
        from ray import serve

        serve.delete(application)

    def _is_at(self, config: Mapping[str, Any], stable: Named) -> bool:
        wanted = {"stable": stable, "canary": None, "options": self.options}
        return {name: config.get(name) for name in wanted} == wanted

    def _is_not_going(self, application: str) -> bool:
        """Not on its way out, since an earlier try was killed: what is given to Serve then may go with it."""
        return self.applications().get(application) != "DELETING"

    def _is_idle(self, application: str) -> bool:
        return self._name not in self.applications() or not self._state()["busy"].get(application)

    def _state(self) -> dict[str, Any]:
        from ray import serve

        handle = serve.get_deployment_handle("Gateway", self._name)
        state: dict[str, Any] = handle.state.remote().result(timeout_s=self._timeout)
        return state

    def _applications(self) -> dict[str, Any]:
        from ray import serve

        found: dict[str, Any] = dict(serve.status().applications)
        return {name: told for name, told in found.items() if name == self._name or name.startswith(f"{self._name}@")}

    def _run(self, application: Any, name: str, route: str | None) -> None:
        """Hands an application to Serve and waits for it. Serve itself would wait for ever."""
        from ray import serve

        self._until(partial(self._is_not_going, name), f"{name} is not gone")
        try:
            serve.run_many([serve.RunTarget(application, name, route)], wait_for_applications_running=False)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"deploy.target: Serve refuses {name}: {short(error)}") from error
        self._wait(name)

    def _wait(self, name: str) -> None:
        """Waits until an application runs. Raises `CheckFailed` of a version that cannot, else `Unavailable`."""
        told: Any = None

        def runs() -> bool:
            nonlocal told
            told = self._applications().get(name)
            if told is not None and told.status in {"DEPLOY_FAILED", "UNHEALTHY"}:
                broken = Unavailable if name == self._name else CheckFailed
                raise broken(f"{name} does not come up: {_why(told)}")
            return told is not None and told.status == "RUNNING"

        self._until(runs, f"{name} is not up", lambda: _why(told))

    def _until(self, done: Callable[[], bool], what: str, why: Callable[[], str] = lambda: "") -> None:
        end = time.monotonic() + self._patience
        while not done():
            if time.monotonic() > end:
                raise Unavailable(f"deploy.target: {what} after {self._patience:g} s {why()}".rstrip())
            time.sleep(_PAUSE)


def _why(told: Any) -> str:
    """What Serve says of an application and its deployments, in one line with the end of it, where the error is."""
    if told is None:
        return ""
    words = [told.message, *(deployment.message for deployment in told.deployments.values())]
    return " ".join(" ".join(words).split())[-600:]


def _digest(model: Model) -> str:
    """What makes replicas others: the files, the code and the environment."""
    parts = [
        model.digest,
        model.loader or "",
        repr(sorted(model.code.items())),
        repr(sorted(model.runtime_env.items())),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _at(http: Mapping[str, Any]) -> str:
    return f"{http['host']}:{http['port']}"
