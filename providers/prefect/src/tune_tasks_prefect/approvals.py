"""A promotion that waits for a person: the flow run pauses or is suspended, with the leaderboard above an input form.

Whether anyone has to agree says the engine, and what was answered stands in the study, whoever asked. This module must
not decide that, and must not carry a promotion out: the promote step does, when it is run again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from prefect import get_run_logger, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import SetStateStatus
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectHTTPStatusError
from prefect.flow_runs import apause_flow_run, asuspend_flow_run, pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.logging import get_logger
from pydantic import Field

from tune_tasks.errors import ConfigError
from tune_tasks_prefect.artifacts import masked
from tune_tasks_prefect.blocks import opened
from tune_tasks_prefect.retries import AS_THE_STUDY_SAYS
from tune_tasks_prefect.showing import code, links_of, plain, standings_of
from tune_tasks_prefect.tasks import apromote_best, promote_best

if TYPE_CHECKING:
    from tune_tasks.studies import Study

Result: TypeAlias = dict[str, Any]
Wait: TypeAlias = Literal["pause", "suspend"]

_PREFIX = "tune-tasks-"
"""What the keys of our pauses begin with."""
_MARGIN = 86400
"""Seconds that Prefect's own limit of a pause is longer than ours: past it, a flow run could only fail."""


class Answer(RunInput):
    """What a person says of a promotion."""

    # No switch: Prefect's form sends one that nobody has touched as a no.
    agreed: Literal["yes", "no"] = Field(title="Make it the champion", description="no: the champion stays as it is")
    by: str = Field(min_length=1, pattern=r"\S", title="By", description="Who decides, for the study's log.")
    why: str = Field(min_length=1, pattern=r"\S", title="Why", description="The reason, for the study's log.")


class _Question(NamedTuple):
    """A promotion that waits for an answer."""

    study: str
    run: str
    store: str | None
    step: str
    """The key of the promotion in the study."""
    key: str
    """The key of the pause."""
    text: str
    seconds: float
    """Until the engine lets the promotion expire."""


def approved(
    model: Result,
    *,
    wait: Wait = "pause",
    timeout: float | None = None,
    poll: float = 10.0,
    store: str | None = None,
    **options: Any,
) -> Result:
    """Has a person agree to a promotion where it waits for that, and carries it out; gives the model as it then stands.

    `model` is what `promote_best` gave: `model = approved(promote_best(study))`. Where it does not wait, it is given
    back. With `wait="pause"` the process waits; with "suspend" it ends, and a resumed flow run comes here once more,
    which needs a deployment. Whoever answers by `tune-tasks approve` or `reject` meanwhile is noticed while it pauses,
    every `poll` seconds; a suspended one is resumed by `resume_answered`. Where nobody answers within `timeout` seconds
    of a pause, the promotion stays pending and the flow goes on with `model`; by default it waits until the engine
    lets the promotion expire. `store` and `options` are for the promote step that follows.
    """
    question = _question(model, store, wait)
    if question is None:
        return model
    if not _answered(question):
        answer = _suspend(question) if wait == "suspend" else _pause(question, timeout, poll)
        if answer is not None:
            _tell(question.study, question.run, answer.model_dump(), store)
    return dict(promote_best(question.study, run=question.run, store=store, **options))


async def aapproved(
    model: Result,
    *,
    wait: Wait = "pause",
    timeout: float | None = None,  # noqa: ASYNC109  # of the pause
    poll: float = 10.0,
    store: str | None = None,
    **options: Any,
) -> Result:
    """Does what `approved` does in an asynchronous flow, whose other work goes on meanwhile."""
    question = await asyncio.to_thread(_question, model, store, wait)
    if question is None:
        return model
    if not await asyncio.to_thread(_answered, question):
        answer = await (_asuspend(question) if wait == "suspend" else _apause(question, timeout, poll))
        if answer is not None:
            await asyncio.to_thread(_tell, question.study, question.run, answer.model_dump(), store)
    return dict(await apromote_best(question.study, run=question.run, store=store, **options))


def resume_answered() -> list[str]:
    """Resumes the suspended flow runs whose promotion someone has answered by other means, or let expire.

    Gives their ids. For a flow that runs on a schedule: a suspended flow run has no process that could look itself.
    """
    suspended = FlowRunFilter(state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Suspended"])))
    resumed = []
    with get_client(sync_client=True) as client:
        for flow_run in client.read_flow_runs(flow_run_filter=suspended):
            key = (flow_run.state.state_details.pause_key if flow_run.state else None) or ""
            try:
                if key.startswith(_PREFIX) and _answered_elsewhere(client, flow_run, key):
                    resumed.append(str(flow_run.id))
            except Exception as error:  # noqa: BLE001  # one whose study is gone must not keep the others waiting
                told = f"{type(error).__name__}: {masked(str(error))}"
                get_logger(__name__).warning("Flow run %s stays suspended: %s", flow_run.name, told)
    return resumed


def _answered_elsewhere(client: SyncPrefectClient, flow_run: FlowRun, key: str) -> bool:
    """Resumes a suspended flow run if its promotion does not wait any more."""
    question = _Question(**json.loads(client.read_flow_run_input(flow_run.id, f"{key}-about")))
    with opened(question.store):
        said = _said(_study(question), question)
    return said is not None and _resumed(client, flow_run.id, said)


def _question(model: Result, store: str | None, wait: Wait) -> _Question | None:
    """What there is to ask; None where the promotion does not wait for anyone."""
    if not model["pending"]:
        return None
    flow_run = _flow_run()
    if wait not in {"pause", "suspend"}:
        raise ConfigError(f"wait: {wait!r} is not allowed; allowed are 'pause' and 'suspend'")
    if wait == "suspend" and flow_run.deployment_id is None:
        raise ConfigError(
            "wait: 'suspend' is not allowed here; the flow run belongs to no deployment, so nothing could go on with "
            "it: deploy the flow, or say wait='pause'"
        )
    run = model["key"].removesuffix("/promote").rpartition("-")[0]
    digest = hashlib.sha256(f"{model['study_id']}/{model['key']}".encode()).hexdigest()[:12]
    # A flow run that is run again asks again: of an earlier try nobody knows whether it was answered.
    tries = f"-{flow_run.run_count}" if wait == "pause" else ""
    question = _Question(model["study"], run, store, model["key"], f"{_PREFIX}{digest}{tries}", "", 0.0)
    from tune_tasks.views.summary import title

    with opened(store):
        study = _study(question)
        expires = study.state.steps[f"{question.step}/decision"]["expires"]
        shell = f"tune-tasks approve|reject {study.url} --run {run} --by NAME --why REASON"
        parts = (plain(title(study.state)), standings_of(study, run), links_of(study), f"Or in a shell: {code(shell)}")
        return question._replace(text="\n\n".join(parts), seconds=max(expires - study.now(), 0.0))


def _answered(question: _Question) -> bool:
    with opened(question.store):
        return _said(_study(question), question) is not None


def _pause(question: _Question, timeout: float | None, poll: float) -> Answer | None:
    seconds = _seconds(question, timeout)
    with _watched(question, seconds, poll) as over:
        answer = pause_flow_run(_form(question), int(seconds) + _MARGIN, max(round(poll), 1), question.key)
    return None if over.is_set() else answer


async def _apause(question: _Question, timeout: float | None, poll: float) -> Answer | None:  # noqa: ASYNC109  # of the pause
    seconds = _seconds(question, timeout)
    with _watched(question, seconds, poll) as over:
        answer = await apause_flow_run(_form(question), int(seconds) + _MARGIN, max(round(poll), 1), question.key)
    return None if over.is_set() else answer


def _suspend(question: _Question) -> Answer:
    _leave_word(question)
    return suspend_flow_run(_form(question), key=question.key)


async def _asuspend(question: _Question) -> Answer:
    await asyncio.to_thread(_leave_word, question)
    return await asuspend_flow_run(_form(question), key=question.key)


@contextmanager
def _watched(question: _Question, seconds: float, poll: float) -> Iterator[threading.Event]:
    """Ends a pause where the study is answered by other means, or the time is up; what it yields is set then."""
    stop, over = threading.Event(), threading.Event()
    flow_run, logger, end = _flow_run(), get_run_logger(), time.monotonic() + seconds

    def look(study: Study) -> bool:
        said = _said(study, question) or (_nobody() if time.monotonic() >= end else None)
        if said is None:
            return False
        with get_client(sync_client=True) as client:
            return _resumed(client, flow_run.id, said)

    def watch() -> None:
        with opened(question.store):
            study = _study(question)
            while not stop.wait(poll):
                try:
                    if look(study):
                        over.set()
                        return
                except Exception as error:  # noqa: BLE001  # a person may still answer here
                    logger.warning("The study cannot be looked at: %s: %s", type(error).__name__, error)

    threading.Thread(target=copy_context().run, args=(watch,), daemon=True).start()
    try:
        yield over
    finally:
        stop.set()


def _resumed(client: Any, flow_run: Any, said: Result) -> bool:
    """Whether a flow run goes on with this answer: it may not be paused yet, or someone else was faster."""
    return bool(client.resume_flow_run(flow_run, run_input=said).status == SetStateStatus.ACCEPT)


def _form(question: _Question) -> type[Answer]:
    return Answer.with_initial_data(description=question.text)


def _seconds(question: _Question, timeout: float | None) -> float:
    """How long to ask; an answer at the last moment would come too late for the engine."""
    return min(math.inf if timeout is None else timeout, question.seconds + 1.0)


def _said(study: Study, question: _Question) -> Result | None:
    """What is known of the answer, as the form has it; None while the promotion waits."""
    from tune_tasks.promotion.approval import answer

    state = study.refresh()
    found = answer(state, question.step)
    if found is not None:
        return {"agreed": "yes" if found.approved else "no", "by": found.by, "why": found.why}
    waits = question.step not in state.steps and study.now() < state.steps[f"{question.step}/decision"]["expires"]
    return None if waits else _nobody()


def _nobody() -> Result:
    return {"agreed": "no", "by": "nobody", "why": "there was no answer in time"}


def _study(question: _Question) -> Study:
    from tune_tasks.studies import open_study

    return open_study(question.study)


def _leave_word(question: _Question) -> None:
    """Says for `resume_answered` what a suspended flow run waits for."""
    about = json.dumps(question._replace(text="")._asdict())
    with get_client(sync_client=True) as client:
        try:
            client.create_flow_run_input(_flow_run().id, f"{question.key}-about", about)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != HTTPStatus.CONFLICT:  # it was said when this was asked first
                raise


def _flow_run() -> FlowRun:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise ConfigError("approved: a person can be asked in a flow run only; use tune-tasks approve elsewhere")
    return context.flow_run


@task(
    name="answer",
    task_run_name="answer {run}",
    **AS_THE_STUDY_SAYS,
)
def _tell(study: str, run: str, said: Result, store: str | None) -> Result:
    """Tells the study what a person said; who was first, counts, and that answer is given back."""
    from tune_tasks.promotion.approval import answer, approve, promotion_key, reject
    from tune_tasks.studies import open_study

    with opened(store):
        handle = open_study(study)
        found = answer(handle.state, promotion_key(handle.state, run))
        tell = approve if said["agreed"] == "yes" else reject
        try:
            found = found or tell(handle, by=said["by"], why=said["why"], run=run)
        except ConfigError as error:  # the promote step records that it expired
            get_run_logger().warning("The answer of %s comes too late: %s", said["by"], error)
            return {"study": study, **said, "approved": False}
    get_run_logger().info("%s by %s: %s", "Approved" if found.approved else "Rejected", found.by, found.why)
    return {"study": study, **found.model_dump(mode="json", exclude={"type", "key", "time"})}
