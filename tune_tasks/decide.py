"""From the state of a study to its next events: the one place where sampler, scheduler and budget meet.

Pure: the time comes in as an argument, nothing is read or written, and the same state gives the same decision.
This module must not know how a trial runs or where a log lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tune_tasks.events import Advance, Assignment, Judged, Planned, Proposal, Prune
from tune_tasks.points import point
from tune_tasks.samplers import Sampler
from tune_tasks.schedulers import Scheduler
from tune_tasks.schedulers.rungs import Halving, rungs
from tune_tasks.spec import StudySpec
from tune_tasks.study import OVER, StudyState, Trial

QUEUE = 4
"""Trials in a batch for each that runs at once: enough that no worker waits for the next step."""
UNKNOWN_CONCURRENCY = 4
"""What a sample step assumes where the spec leaves the concurrency to the cluster, which it does not see."""

DECISIONS = 20_000
"""Most decisions of one verdict, which is one event and must fit into a segment; the next verdict has the others."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The sampler and the scheduler of a study."""

    sampler: Sampler
    scheduler: Scheduler


@dataclass(frozen=True, slots=True)
class Place:
    """Where a decision belongs: its step key, pipeline run, round and batch."""

    key: str
    run: str
    round: int
    batch: str


def batch_size(spec: StudySpec) -> int:
    """How many trials a sample step puts into a batch when it is not told."""
    return spec.execution.batch or QUEUE * (spec.budget.concurrency or UNKNOWN_CONCURRENCY)


def rounds(spec: StudySpec, scheduler: Scheduler, count: int | None = None) -> int:
    """How many rounds are enough for a study, in batches of `count`: each trial twice, and one for every rung."""
    if spec.execution.flow == "streaming":
        return 1
    levels = 1
    if isinstance(scheduler, Halving):
        levels = len(rungs(scheduler.min_budget, scheduler.max_budget, scheduler.reduction_factor))
    return -(-2 * spec.budget.trials // (count or batch_size(spec))) + levels


def plan(state: StudyState, policy: Policy, place: Place, *, count: int, carry: bool, time: float) -> Planned:
    """Fills a batch of `count`: what was left running or waiting (`carry`), then advances, then new configurations."""
    assignments = [*(_carried(state) if carry else ()), *_advanced(state)]
    wanted = min(max(count - len(assignments), 0), _left(state)) if spent(state) is None else 0
    planned = Planned(
        key=place.key,
        run=place.run,
        round=place.round,
        batch=place.batch,
        proposals=(),
        assignments=tuple(assignments),
        exhausted=False,
        time=time,
    )
    starts = _starts(state)[:wanted]
    planned = _with(planned, starts, policy.scheduler)
    if wanted > len(starts):
        proposals = policy.sampler.propose(_after(state, planned, starts), wanted - len(starts))
        planned = _with(planned, proposals, policy.scheduler)
    return planned.model_copy(update={"exhausted": len(planned.proposals) < wanted})


def judge(state: StudyState, policy: Policy, place: Place, *, time: float) -> Judged:
    """Decides who advances, who is pruned, and whether the study is done, with the reason for each."""
    closing = _closing(state)
    review = policy.scheduler.review(state, closing=closing)
    decisions = review[:DECISIONS]
    advances = tuple(decision for decision in decisions if isinstance(decision, Advance))
    prunes = tuple(decision for decision in decisions if isinstance(decision, Prune))
    ended = spent(state) or (_finished(state) if closing and not advances and len(review) <= DECISIONS else None)
    if ended is None:
        reason = (
            f"{len(advances)} advance, {len(prunes)} pruned, {_left(state)} of {state.spec.budget.trials} to sample"
        )
    else:
        reason = ended
    best = state.best
    return Judged(
        key=place.key,
        batch=place.batch,
        advances=advances if ended is None else (),
        prunes=prunes,
        done=ended is not None,
        best=best.number if best else None,
        value=best.value if best else None,
        reason=reason,
        time=time,
    )


def could_go_on(state: StudyState, policy: Policy) -> bool:
    """Tells whether a next step would find work now, beside what already runs."""
    if spent(state) is not None:
        return False
    if _left(state):
        return True
    return any(isinstance(d, Advance) for d in policy.scheduler.review(state, closing=False))


def watch(state: StudyState, policy: Policy, trial: Trial) -> Prune | None:
    """Decides about a running trial that has just reported."""
    return policy.scheduler.watch(state, trial)


def overdue(state: StudyState, trial: Trial, *, time: float) -> Prune | None:
    """Prunes a running trial that has had all the time that a trial gets."""
    limit = state.spec.budget.trial_time
    if limit is None or trial.began is None or trial.seconds + time - trial.began < limit:
        return None
    return Prune(trial=trial.number, reason=f"has run for {limit:g} s, all that budget.trial_time allows")


def retries(state: StudyState, trial: Trial, outcome: str) -> bool:
    """Tells whether a trial that failed or was lost is tried again."""
    retry = state.spec.retry
    return trial.losses < retry.infrastructure if outcome == "lost" else trial.failures < retry.failures


def spent(state: StudyState, *, time: float | None = None) -> str | None:
    """Says which budget of the whole study is used up; None while none is.

    `time` is for a driver that is at work, in seconds since the epoch; without it, the last event of the log counts, as
    a driver that was killed works no longer.
    """
    wall_time = state.spec.budget.wall_time
    if wall_time is not None and state.elapsed_by(time or state.now) >= wall_time:
        return f"the wall time of {wall_time:g} s is used up"
    return None


class _Advancing:
    """The trials that go on, by decision, and are in no batch yet."""

    def __init__(self) -> None:
        self.numbers: set[int] = set()

    def take(self, _: StudyState, trial: Trial) -> None:
        """See `Index.take`."""
        if trial.state not in OVER and trial.advance is not None:
            self.numbers.add(trial.number)
        else:
            self.numbers.discard(trial.number)


def _advancing(state: StudyState) -> list[Trial]:
    index = state.changes.index(state, _Advancing, _Advancing)
    return [state.trials[number] for number in sorted(index.numbers)]


def _closing(state: StudyState) -> bool:
    waiting = any(trial.state == "paused" for trial in _advancing(state))
    return not (state.queue or state.running or waiting or _left(state))


def _finished(state: StudyState) -> str:
    if state.exhausted and len(state.trials) < state.spec.budget.trials:
        return f"the sampler has nothing more to try after {len(state.trials)} trials"
    return f"all {len(state.trials)} trials are over"


def _left(state: StudyState) -> int:
    return 0 if state.exhausted else max(state.spec.budget.trials - len(state.trials), 0)


def _starts(state: StudyState) -> list[Proposal]:
    """The configurations to try first that are left: trial n is the nth of them."""
    space, first = state.spec.space, len(state.trials)
    return [
        Proposal(number=number, params=point(space, start.params), reason=start.origin)
        for number, start in enumerate(state.spec.start[first:], first)
    ]


def _with(planned: Planned, proposals: Sequence[Proposal], scheduler: Scheduler) -> Planned:
    assignments = [_first(proposal, scheduler) for proposal in proposals]
    return planned.model_copy(
        update={
            "proposals": (*planned.proposals, *proposals),
            "assignments": (*planned.assignments, *assignments),
        }
    )


def _after(state: StudyState, planned: Planned, starts: Sequence[Proposal]) -> StudyState:
    """The state that a sampler is shown: with the configurations that are tried first in the same batch."""
    if not starts:
        return state
    after = state.copy()
    after.apply(planned)
    return after


def _carried(state: StudyState) -> Iterator[Assignment]:
    for number in state.queue:
        trial = state.trials[number]
        reason = f"goes on after step {trial.budget}: {trial.why}" if trial.attempts else trial.why
        yield Assignment(trial=number, budget=trial.target, last=trial.last, reason=reason)


def _advanced(state: StudyState) -> Iterator[Assignment]:
    for trial in _advancing(state):
        if (step := trial.advance) is not None:
            yield Assignment(trial=trial.number, budget=step.budget, last=step.last, reason=step.reason)


def _first(proposal: Proposal, scheduler: Scheduler) -> Assignment:
    budget = scheduler.first_budget(proposal.number)
    last = budget is None or budget == scheduler.max_budget
    return Assignment(trial=proposal.number, budget=budget, last=last, reason=proposal.reason)
