"""Approval: a promotion that waits in the log for a person, who agrees or refuses, once and in time.

Each answer is an event with a name and a reason. This module must not carry a promotion out: the promote step does,
when it is run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tune_tasks.errors import ConfigError, invalid
from tune_tasks.events import Approved, Promoting
from tune_tasks.studies import Study, append
from tune_tasks.study import StudyState

if TYPE_CHECKING:
    from collections.abc import Iterator

_END = "/promote"


def promotion_key(state: StudyState, run: str) -> str:
    """The step key of the promotion of a pipeline run, as far as the run has come."""
    return f"{run}-{state.rounds.get(run, 0):04d}{_END}"


def approve(study: Study, *, by: str, why: str, run: str | None = None) -> Approved:
    """Agrees to the promotion that waits; the promote step, run again, then carries it out.

    `run` is needed where promotions of several pipeline runs wait. Raises `ConfigError` where none waits, or this one
    was answered before or expired.
    """
    return _answer(study, approved=True, by=by, why=why, run=run)


def reject(study: Study, *, by: str, why: str, run: str | None = None) -> Approved:
    """Refuses the promotion that waits; the promote step, run again, then records that the champion stays."""
    return _answer(study, approved=False, by=by, why=why, run=run)


def answer(state: StudyState, key: str) -> Approved | None:
    """What a person said of a promotion; None where nobody has said anything."""
    found = state.steps.get(f"{key}/approval")
    return Approved(**found) if found is not None else None


def moment(time: float) -> str:
    """A time as a person reads it."""
    return f"{datetime.fromtimestamp(time, tz=UTC):%Y-%m-%d %H:%M} UTC"


def _answer(study: Study, *, approved: bool, by: str, why: str, run: str | None) -> Approved:
    said = {"by": " ".join(by.split()), "why": " ".join(why.split())}
    for name, text in said.items():
        if not text:
            raise invalid(name, {"by": by, "why": why}[name], "an approval says who decides, and why")

    def make(state: StudyState) -> Approved:
        key = _waiting(state, run, study.now())
        return Approved(key=key, approved=approved, time=study.now(), **said)

    event = append(study, make)
    if event is None:
        raise RuntimeError("an approval that was not refused is an event")
    return event


def _waiting(state: StudyState, run: str | None, now: float) -> str:
    """The key of the promotion that waits. Raises `ConfigError` saying how others stand."""
    keys = [promotion_key(state, run)] if run is not None else list(_current(state))
    refused = {key: _objection(state, key, now) for key in keys}
    waiting = [key for key, objection in refused.items() if objection is None]
    if len(waiting) == 1:
        return waiting[0]
    if waiting:
        runs = ", ".join(_run(key) for key in waiting)
        raise ConfigError(f"approval: the promotions of several runs wait ({runs}); name one with run")
    told = "; ".join(f"{key} {objection}" for key, objection in refused.items())
    raise ConfigError(f"approval: nothing waits for one: {told or 'no promotion was decided yet; run promote-best'}")


def _current(state: StudyState) -> Iterator[str]:
    """The promotions that were decided, of every run's newest round."""
    for step in state.steps:
        key = step.removesuffix("/decision")
        if key != step and key.endswith(_END) and key == promotion_key(state, _run(key)):
            yield key


def _objection(state: StudyState, key: str, now: float) -> str | None:
    """Why a promotion does not wait for anyone."""
    decided = state.steps.get(f"{key}/decision")
    if decided is None:
        return "was not decided yet, or the study has gone on since; run promote-best"
    said = answer(state, key)
    if said is not None:
        return f"was {'approved' if said.approved else 'rejected'} by {said.by} at {moment(said.time)}: {said.why}"
    decision = Promoting(**decided)
    if decision.expires is None:
        return "needs no approval" if decision.trial is not None else f"did not pass: {decision.reason}"
    if key in state.steps or now >= decision.expires:
        return f"expired at {moment(decision.expires)}"
    return None


def _run(key: str) -> str:
    return key.removesuffix(_END).rpartition("-")[0]


def add_commands(commands: Any, open_study: Callable[[argparse.Namespace], Study]) -> None:
    """Adds `approve` and `reject` to the command line; `open_study` opens what a command names."""
    for name, function, text in (
        ("approve", approve, "agree to the promotion that waits; then run promote-best again"),
        ("reject", reject, "refuse the promotion that waits: the champion stays"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("study", metavar="SPEC|URL")
        command.add_argument("--by", required=True, help="who decides")
        command.add_argument("--why", required=True, help="the reason, for the log")
        command.add_argument("--run", default=None, help="the pipeline run, where promotions of several wait")
        command.set_defaults(command=_command(function, open_study))


def _command(
    function: Callable[..., Approved], open_study: Callable[[argparse.Namespace], Study]
) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        said = function(open_study(options), by=options.by, why=options.why, run=options.run)
        sys.stdout.write(said.model_dump_json(indent=2, exclude={"type"}) + "\n")
        return 0

    return run
