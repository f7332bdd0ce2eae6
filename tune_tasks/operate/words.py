"""What an event says, in words for a person, and which trial it is about. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, assert_never, get_args

from tune_tasks.events import (
    Advance,
    Amended,
    Approved,
    Checkpointed,
    Claimed,
    Created,
    Deployed,
    Deploying,
    Discarded,
    Ended,
    Evaluated,
    Event,
    Judged,
    Launched,
    Opened,
    Planned,
    Promoted,
    Promoting,
    Prune,
    Pruned,
    Reports,
    Requested,
    Started,
)
from tune_tasks.operate.sizes import in_words
from tune_tasks.views import number, parameters, printable

TYPES: tuple[str, ...] = tuple(sorted(kind.model_fields["type"].default for kind in get_args(Event)))
"""The types of event that a log may have."""

_IN_FULL = 3
"""Trials of one event that are told one by one, each with its reason; more are told together."""

_ENDS = {
    "reached": "ran its budget",
    "returned": "is complete: its objective returned",
    "carried": "is paused at the end of a step, and goes first in the next",
    "failed": "failed",
    "lost": "lost its worker",
    "stopped": "stopped, as it was told to",
    "moved": "saved its work, as its node is about to go away, and goes on elsewhere",
}


def words(event: Event) -> str:
    """What the event says, on one line and with its reasons."""
    return printable(_words(event))


def about(event: Event, trial: int) -> Event | None:  # noqa: PLR0911  # one return for each kind of event
    """The part of an event that is about one trial; None where nothing is."""
    match event:
        case Reports():
            rows = [row for row, number in enumerate(event.trial) if number == trial]
            return _rows(event, rows) if rows else None
        case Discarded():
            return event if trial in event.trial else None
        case Planned():
            proposals = tuple(proposal for proposal in event.proposals if proposal.number == trial)
            assignments = tuple(assignment for assignment in event.assignments if assignment.trial == trial)
            update: dict[str, Any] = {"proposals": proposals, "assignments": assignments, "exhausted": False}
            return event.model_copy(update=update) if proposals or assignments else None
        case Judged():
            advances = tuple(advance for advance in event.advances if trial in {advance.trial, advance.donor})
            prunes = tuple(prune for prune in event.prunes if prune.trial == trial)
            return event.model_copy(update={"advances": advances, "prunes": prunes}) if advances or prunes else None
        case Promoted():
            return event if event.model.get("trial") == trial else None
        case Started() | Checkpointed() | Ended() | Pruned() | Promoting():
            return event if event.trial == trial else None
        case Evaluated():
            return event if event.model.startswith(f"trial-{trial}-") else None
        case Amended():
            return event if trial in event.reopened else None
        case Created() | Claimed() | Requested() | Opened() | Launched() | Approved() | Deploying() | Deployed():
            return None
        case _:
            assert_never(event)


def _words(event: Event) -> str:  # noqa: PLR0911  # as above
    match event:
        case Created():
            return _created(event)
        case Amended():
            reopened = f"; {_trials(event.reopened)} may go on" if event.reopened else ""
            return f"the spec was changed: {', '.join(event.changes)}{reopened}"
        case Claimed():
            return f"the pipeline {event.pipeline} carries the study on"
        case Planned():
            return _planned(event)
        case Requested():
            waits = f"; {event.by} waits for it" if event.by else ""
            return f"job {event.job} of the study is asked to run {event.batch}{waits}"
        case Opened():
            return f"driver {event.owner} took the study over"
        case Started():
            begins = f"from the checkpoint of step {event.step}" if event.step else "from the beginning"
            return f"trial {event.trial} {begins}, attempt {event.attempt} on {event.worker}"
        case Reports():
            return _reports(event)
        case Checkpointed():
            saved = event.checkpoint
            return f"trial {event.trial} saved step {event.step}: {in_words(saved.size)} at {saved.key}"
        case Discarded():
            return f"{len(event.keys)} checkpoints are not needed any more, of {_trials(event.trial)}"
        case Ended():
            again = "; it is tried again" if event.retry else ""
            error = f": {_last_line(event.error)}" if event.error else ""
            return f"trial {event.trial} {_ENDS[event.outcome]}{error}{again} (attempt {event.attempt})"
        case Pruned():
            return f"trial {event.trial} is pruned after step {event.step}: {event.reason}"
        case Launched():
            return f"{event.batch} ran: {_counts(event.states)}; {_best(event)}{event.reason}{_avoided(event)}"
        case Judged():
            return _judged(event)
        case Evaluated() | Promoting() | Approved() | Promoted() | Deploying() | Deployed():
            return _delivered(event)
        case _:
            assert_never(event)


def _delivered(event: Evaluated | Promoting | Approved | Promoted | Deploying | Deployed) -> str:
    match event:
        case Promoting():
            chosen = "the champion stays" if event.trial is None else f"trial {event.trial} at step {event.step}"
            waits = "; waits for approval" if event.expires is not None else ""
            others = [gate.reason for gate in event.gates if gate.reason not in event.reason]
            return f"{chosen}: {'; '.join([event.reason, *others])}{waits}"
        case Evaluated():
            return f"{event.model} with seed {event.seed}: {event.error or parameters(event.metrics)}"
        case Approved():
            return f"{event.by} {'agreed to' if event.approved else 'refused'} the promotion {event.key}: {event.why}"
        case Deploying():
            what = "is taken away" if event.version is None else f"gets version {event.version}"
            return f"{event.name} at {event.target} {what}; before it was {event.previous or 'none'}"
        case Deployed():
            return f"{event.result.get('name')}: {event.result.get('reason')}"
        case Promoted():
            model = event.model
            what = f"{model.get('uri')} is the {model.get('alias')}" if model.get("promoted") else "the champion stays"
            return f"{what}: {model.get('reason')}"
        case _:
            assert_never(event)


def _avoided(event: Launched) -> str:
    return f"; avoided: {', '.join(event.avoided)}" if event.avoided else ""


def _created(event: Created) -> str:
    spec = event.spec
    what = " ".join(dict(spec.get("command") or {}).get("run", ())) or spec.get("objective")
    sampler, scheduler = (dict(spec.get(kind) or {}).get("name", "default") for kind in ("sampler", "scheduler"))
    return (
        f"study {spec.get('name')}: {spec.get('mode')} {spec.get('metric')} of {what}, {sampler}, "
        f"{scheduler}, {dict(spec.get('budget') or {}).get('trials')} trials; id {event.study}"
    )


def _planned(event: Planned) -> str:
    new = {proposal.number: proposal for proposal in event.proposals}
    parts = []
    runs = sorted(event.assignments, key=lambda a: (a.budget is None, a.budget or 0, a.trial not in new, a.trial))
    for (budget, going_on), group in groupby(runs, key=lambda a: (a.budget, a.trial not in new)):
        same = list(group)
        numbers = [assignment.trial for assignment in same]
        reasons = list(dict.fromkeys(a.reason if going_on else new[a.trial].reason for a in same))
        told = f"{'' if going_on else 'new '}{_trials(numbers)} to {_steps(budget)}"
        params = "" if going_on or len(same) > 1 else f": {parameters(new[numbers[0]].params)}"
        shown = [*reasons[:_IN_FULL], *(["..."] if len(reasons) > _IN_FULL else [])]
        parts.append(f"{told}{params} ({'; '.join(shown)})")
    nothing = ["the sampler has nothing more to propose"] if event.exhausted else []
    return f"{event.batch}: {'; '.join([*parts, *nothing]) or 'nothing to run'}"


def _reports(event: Reports) -> str:
    told = []
    by_trial = sorted(range(len(event.trial)), key=lambda row: event.trial[row])
    for trial, group in groupby(by_trial, key=lambda row: event.trial[row]):
        rows = list(group)
        metrics = {name: column[rows[-1]] for name, column in event.metrics.items() if column[rows[-1]] is not None}
        steps = f"step {event.step[rows[0]]}" if len(rows) == 1 else f"steps {_ranges(event.step[row] for row in rows)}"
        told.append(f"trial {trial} {steps}: {parameters(metrics)}")
    more = [f"{len(told) - _IN_FULL} trials more"] if len(told) > _IN_FULL else []
    return "; ".join([*told[:_IN_FULL], *more])


def _judged(event: Judged) -> str:
    parts = _decided(event.advances, "advance") + _decided(event.prunes, "are pruned")
    end = f"the study is done: {event.reason}" if event.done else event.reason
    return f"{event.batch}: {'; '.join([*parts, end])}"


def _decided(decisions: Sequence[Advance | Prune], told: str) -> list[str]:
    if len(decisions) > _IN_FULL:
        return [f"{_trials([d.trial for d in decisions])} {told}"]
    return [f"trial {d.trial} {_decision(d)} ({d.reason})" for d in decisions]


def _decision(decision: Advance | Prune) -> str:
    if isinstance(decision, Prune):
        return "is pruned"
    donor = "" if decision.donor is None else f" from the checkpoint of trial {decision.donor}"
    params = "" if decision.params is None else f" with {parameters(decision.params)}"
    return f"advances to {_steps(decision.budget)}{donor}{params}"


def _rows(event: Reports, rows: list[int]) -> Reports:
    return Reports(
        trial=[event.trial[row] for row in rows],
        attempt=[event.attempt[row] for row in rows],
        step=[event.step[row] for row in rows],
        time=[event.time[row] for row in rows],
        metrics={name: [column[row] for row in rows] for name, column in event.metrics.items()},
    )


def _best(event: Launched) -> str:
    return "" if event.best is None else f"best is trial {event.best} with {number(event.value)}; "


def _counts(states: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.items()) or "nothing"


def _steps(budget: int | None) -> str:
    return "its end" if budget is None else f"{budget} step{'' if budget == 1 else 's'}"


def _trials(numbers: Iterable[int]) -> str:
    text = _ranges(numbers)
    return f"trials {text}" if "-" in text or "," in text else f"trial {text}"


def _ranges(numbers: Iterable[int]) -> str:
    """Numbers as 0-4, 7."""
    found: list[list[int]] = []
    for value in sorted(set(numbers)):
        if found and value == found[-1][1] + 1:
            found[-1][1] = value
        else:
            found.append([value, value])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def _last_line(text: str) -> str:
    """The line of an error that says what happened: the last one of a traceback."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
