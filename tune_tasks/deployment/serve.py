"""The target `serve`: an endpoint on Ray Serve, where a new version shows itself before it gets all requests.

Each version is an application of its own, and one small gateway at the route shares the requests among them; to give
a version its share, or take it away, is a message to the gateway, so no request is lost. This module must not start
or stop a Ray cluster, and must not touch applications of other names.
"""

from __future__ import annotations

import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tune_tasks.deployment import CheckFailed, Checks, Model, Outcome, Standing
from tune_tasks.deployment.canary import Figures, objection
from tune_tasks.deployment.endpoint import Endpoint, attached
from tune_tasks.errors import ConfigError
from tune_tasks.sections import Duration, Size
from tune_tasks.store.names import has_credentials, shown_url

_SLACK = 30.0
"""Seconds for which a canary keeps its share after its time, for whoever watches it to decide."""


class _CanaryFailed(CheckFailed):
    """A check failed, or the figures, while it had its share of the requests."""

    def __init__(self, why: str, figures: Figures) -> None:
        super().__init__(why)
        self.figures = figures


class ServeTarget(BaseModel):
    """Its options. `host` and `port` count where Serve does not run on the cluster yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = "auto"
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    route: str | None = Field(default=None, pattern=r"^/[A-Za-z0-9._/-]*[A-Za-z0-9._-]$")
    replicas: int = Field(default=1, ge=1)
    autoscaling: dict[str, Any] | None = None
    cpu: float = Field(default=1.0, ge=0)
    gpu: float = Field(default=0.0, ge=0)
    memory: Size | None = None
    timeout: Duration = 30.0
    start_time: Duration = 120.0

    def deploy(self, model: Model, checks: Checks) -> Outcome:
        """Brings a version up, tries it, gives it its share and then everything. See `Target.deploy`."""
        _reachable(model)
        with attached(self.address):
            endpoint = self._endpoint(model.name)
            endpoint.open()
            return _bring(endpoint, model, checks)

    def undeploy(self, name: str) -> None:
        """Takes the endpoint away: first the gateway, whose requests are answered, then its versions."""
        with attached(self.address):
            endpoint = self._endpoint(name)
            for application in sorted(endpoint.applications()):  # the gateway's name is the shortest
                endpoint.remove(application)

    def standing(self, name: str) -> Standing | None:
        """Asks the gateway. See `Target.standing`."""
        with attached(self.address):
            endpoint = self._endpoint(name)
            applications = endpoint.applications()
            if not applications:
                return None
            config = endpoint.config()
            stable = config.get("stable")
            expected = {name, stable["application"]} if stable else set()
            settled = (
                set(applications) == expected
                and set(applications.values()) == {"RUNNING"}
                and config["canary"] is None
                and config["options"] == endpoint.options
            )
            version, digest = (stable["version"], stable["digest"]) if stable else (None, None)
            return Standing(version=version, digest=digest, settled=settled, url=endpoint.url)

    def _endpoint(self, name: str) -> Endpoint:
        actor = {"num_cpus": self.cpu, "num_gpus": self.gpu}
        scaling = {"autoscaling_config": self.autoscaling} if self.autoscaling else {"num_replicas": self.replicas}
        return Endpoint(
            name,
            route=self.route or f"/{name}",
            http={"host": self.host, "port": self.port},
            replica={**scaling, "ray_actor_options": actor | ({"memory": self.memory} if self.memory else {})},
            timeout=self.timeout,
            patience=self.start_time,
        )


def _bring(endpoint: Endpoint, model: Model, checks: Checks) -> Outcome:
    """Makes the version the stable one, from wherever an earlier try left the endpoint."""
    new, stable = endpoint.named(model), endpoint.config().get("stable")
    if stable == new:
        endpoint.start(model)
        endpoint.settle(new)
        return Outcome(took=True, reason="it is the stable version already", url=endpoint.url)
    endpoint.settle(stable, new)
    try:
        figures = _try(endpoint, model, checks, stable)
    except BaseException as error:
        # Also where a person interrupts: what is unfinished must not hold resources, or a share of the requests.
        endpoint.settle(stable)
        if isinstance(error, CheckFailed):
            return _outcome(endpoint, str(error), getattr(error, "figures", None), took=False)
        raise
    endpoint.settle(new)
    return _outcome(endpoint, figures.told() if figures else "it was asked, and answered", figures, took=True)


def _outcome(endpoint: Endpoint, reason: str, figures: Figures | None, *, took: bool) -> Outcome:
    seen = figures or Figures()
    return Outcome(
        took=took,
        reason=reason,
        url=endpoint.url,
        requests=seen.requests,
        errors=seen.errors,
        latency=seen.latency,
    )


def _try(endpoint: Endpoint, model: Model, checks: Checks, stable: dict[str, str] | None) -> Figures | None:
    """Starts the version and asks it; where there is an earlier one, lets it have its share. Raises `CheckFailed`."""
    new = endpoint.named(model)
    endpoint.start(model)
    predict = endpoint.predict(new)
    checks.ask(predict)
    canary = checks.canary
    if canary is None or stable is None:
        return None
    end = time.monotonic() + canary.time
    endpoint.route(stable, new, share=canary.share, until=time.time() + canary.time + _SLACK)
    while True:
        left = end - time.monotonic()
        figures = endpoint.figures()
        why = objection(figures, canary, over=left <= 0)
        if why is not None:
            raise _CanaryFailed(f"as a canary {why}", figures)
        try:
            checks.ask(predict)
        except CheckFailed as failed:
            raise _CanaryFailed(f"{failed}; by then {figures.told()}", figures) from failed
        if left <= 0:
            return figures
        time.sleep(min(left, 1.0))


def _reachable(model: Model) -> None:
    """Raises `ConfigError` where a replica could not fetch or load the model."""
    if model.loader is None:
        raise ConfigError("promotion.loader: missing; an endpoint needs one to turn the model's files into predictions")
    if model.path.startswith("memory:"):
        raise ConfigError(f"store: {model.path} lives in one process, and an endpoint in others; use another store")
    if has_credentials(model.path):
        raise ConfigError(
            f"store: the credentials in the URL of {shown_url(model.path)} do not reach the replicas; "
            "put them into the environment, of this process and of the cluster"
        )
