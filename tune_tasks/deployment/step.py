"""The deploy step: takes the champion under the alias to the target; its intent is in the log first, its result last.

A kill between any two of these is healed by running the step again: targets end the same, whoever calls. This module
must not deploy a version that is not the champion, and must not know what a target does.
"""

from __future__ import annotations

import re
import time
from typing import Any

from tune_tasks import plugins
from tune_tasks.delivery import Deploy
from tune_tasks.deployment import Checks, Outcome, Standing, Target
from tune_tasks.deployment.source import model_of
from tune_tasks.errors import ConfigError
from tune_tasks.events import Deployed, Deploying, Value
from tune_tasks.promotion.championship import champions
from tune_tasks.registry import Champion, Champions
from tune_tasks.spec import StudySpec, check_name, resolve
from tune_tasks.studies import Study, record


class Deployment(Value):
    """What a deploy step gave: what now stands at the target, and why.

    `deployed`: the champion that it found gets the requests. `changed`: something was done. `requests`, `errors` and
    `latency` (95th percentile, in seconds) are the canary's, where there was one.
    """

    deployed: bool
    changed: bool
    target: str
    name: str
    version: str | None
    previous: str | None
    url: str
    reason: str
    requests: int = 0
    errors: int = 0
    latency: float | None = None


def deploy(study: Study, *, run: str = "main") -> Deployment:
    """Brings the champion of the study's model to the target of the spec; says so where it is there already.

    A version that fails its check, or as a canary, goes again, and the one before stays; with `deploy.rollback` the
    alias goes back to that too. Raises `ConfigError` where there is no champion or the target refuses, `Unavailable`
    where it does not answer; the version before then still gets the requests.
    """
    work = _Work(study, run)
    held = champions(study)
    champion, _ = held.current(time=time.time())
    if champion is None:
        raise ConfigError(f"deploy: {held.model} has no {held.alias} yet; promote a model first")
    model = model_of(study, held, champion, work.name)
    standing = work.target.standing(work.name)
    there = standing is not None and standing.settled and standing.digest == model.digest
    there = there and standing is not None and standing.version == model.version
    closed = work.close(model.version, standing, _overtaken(held, work.intent, champion))
    if there and work.intent is None:
        return closed or work.told(standing, deployed=True, reason=f"version {model.version} is there already")
    work.intend(model.version, standing)
    if there:
        outcome = Outcome(took=True, reason="it was brought there before the step could say so", url=work.url(standing))
    else:
        outcome = work.target.deploy(model, _checks(study))
    return work.finish(_concluded(work, held, champion, outcome))


def undeploy(study: Study, *, run: str = "main") -> Deployment:
    """Takes away what is deployed under the name of the study's model; says so where nothing is."""
    work = _Work(study, run)
    standing = work.target.standing(work.name)
    work.close(None, standing, "it was to be taken away before it was deployed")
    if standing is None and work.intent is None:
        return work.told(None, deployed=False, reason="nothing is there")
    work.intend(None, standing)
    work.target.undeploy(work.name)
    before = work.previous
    return work.finish(work.told(None, deployed=False, changed=True, previous=before, reason="it was taken away"))


class _Work:
    """A deploy step in the log: its key is (study, run, how many of that run are over)."""

    def __init__(self, study: Study, run: str) -> None:
        try:
            check_name(run)
        except ValueError as error:
            raise ConfigError(f"run: {error}") from None
        self._study, self._run = study, run
        spec = study.refresh().spec
        self._section = spec.deploy or Deploy()
        self.target: Target = plugins.target(self._section)
        self.name = _name(spec)
        self._key, self._intent = self._next()

    @property
    def intent(self) -> dict[str, Any] | None:
        """What an earlier try, or this one, recorded that it will do; None before that."""
        return self._intent

    @property
    def rollback(self) -> bool:
        """Whether the alias goes back where a version fails."""
        return self._section.rollback

    @property
    def previous(self) -> str | None:
        """The version that was there when the step began."""
        found: str | None = self._intent["previous"] if self._intent else None
        return found

    def close(self, version: str | None, standing: Standing | None, why: str) -> Deployment | None:
        """Ends a step that was cut off and meant another version than is wanted now."""
        if self._intent is None or self._intent["version"] == version:
            return None
        closed = self.finish(self.told(standing, deployed=False, changed=True, previous=self.previous, reason=why))
        self._key, self._intent = self._next()
        return closed

    def intend(self, version: str | None, standing: Standing | None) -> None:
        """Records what is about to be done, unless an earlier try has."""
        event = Deploying(
            key=self._key,
            target=self._section.target.name,
            name=self.name,
            version=version,
            previous=standing.version if standing else None,
            time=time.time(),
        )
        self._intent = record(self._study, f"{self._key}/intent", lambda _: event)

    def finish(self, deployment: Deployment) -> Deployment:
        """Records the result; where another process was faster, it is that one's."""
        event = Deployed(key=self._key, result=deployment.model_dump(mode="json"), time=time.time())
        return Deployment(**record(self._study, self._key, lambda _: event))

    def told(self, standing: Standing | None, *, deployed: bool, reason: str, **more: Any) -> Deployment:
        """A result that says what stands at the target."""
        told = {"version": standing.version if standing else None, "url": self.url(standing), "previous": None}
        return Deployment(
            deployed=deployed,
            target=self._section.target.name,
            name=self.name,
            reason=reason,
            **{"changed": False, **told, **more},
        )

    def url(self, standing: Standing | None) -> str:
        """Where it stands."""
        return standing.url if standing else ""

    def _next(self) -> tuple[str, dict[str, Any] | None]:
        """The key of the first step that is not over, and its intent."""
        steps, number = self._study.state.steps, 0
        while f"{self._run}/deploy/{number}" in steps:
            number += 1
        key = f"{self._run}/deploy/{number}"
        return key, steps.get(f"{key}/intent")


def _concluded(work: _Work, held: Champions, champion: Champion, outcome: Outcome) -> Deployment:
    """What came of it; where the version failed, the alias goes back before that is recorded."""
    figures = {"requests": outcome.requests, "errors": outcome.errors, "latency": outcome.latency}
    told = {"changed": True, "previous": work.previous, "url": outcome.url, **figures}
    if outcome.took:
        reason = f"version {champion.version}: {outcome.reason}"
        return work.told(None, deployed=True, reason=reason, **{**told, "version": champion.version})
    reason = f"version {champion.version} failed its check: {outcome.reason}"
    if work.rollback:
        reason += f"; {_go_back(held, champion.version, work.previous, reason)}"
    return work.told(None, deployed=False, reason=reason, **{**told, "version": work.previous})


def _go_back(held: Champions, failed: str, earlier: str | None, why: str) -> str:
    """Moves the alias back from a version that failed, if it still names that. Says what became of it."""
    present, _ = held.current(time=time.time())
    if present is None or present.version != failed:
        return f"the {held.alias} is version {present.version if present else 'no'} by now"
    try:
        reign = held.rollback(earlier, who="deploy", why=why, time=time.time())
    except ConfigError:
        return f"the {held.alias} stays: there is no earlier one"
    return f"the {held.alias} is version {reign.version} again"


def _overtaken(held: Champions, intent: dict[str, Any] | None, champion: Champion) -> str:
    """Why a step that was cut off is not gone on with: the champion is another one."""
    reigns = held.history()
    last = reigns[-1] if reigns else None
    how = f" by {last.by} ({last.why})" if last and last.version == champion.version else ""
    return f"version {intent['version'] if intent else None} is not the {held.alias}: {champion.version} became it{how}"


def _checks(study: Study) -> Checks:
    spec = study.spec
    canary = spec.deploy.canary if spec.deploy else None
    example, check = spec.promotion.example, canary.check if canary else None
    return Checks(
        example=resolve(example, "promotion.example", study.folder) if example else None,
        check=resolve(check, "deploy.canary.check", study.folder) if check else None,
        canary=canary,
    )


def _name(spec: StudySpec) -> str:
    """The name at the target: the model's, and the alias where that is not the usual one; in letters that a URL has."""
    alias = spec.promotion.alias
    name = spec.model if alias == "champion" else f"{spec.model}-{alias}"
    return re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip(".-") or "model"
