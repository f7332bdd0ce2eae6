"""Trains the winner of a study once more, on all the data: a small study of its own, beside the one that it comes from.

Its trials are one configuration with several seeds, so runner, checkpoints, resume and promotion are those of any
study. This module must not promote: `promote_best` of the final study does, by the gates of the spec.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tune_tasks.delivery import Final
from tune_tasks.errors import ConfigError
from tune_tasks.events import (
    Assignment,
    Checkpointed,
    CheckpointRef,
    Discarded,
    Ended,
    Event,
    Planned,
    Proposal,
    Reports,
    Started,
)
from tune_tasks.loop import tune
from tune_tasks.registry import candidate
from tune_tasks.space import Constant
from tune_tasks.spec import StudySpec, check_name
from tune_tasks.store import checkpoints
from tune_tasks.studies import Study, commit, derive, find_study, open_study
from tune_tasks.study import Saved, StudyState

SEED = "seed"
"""The parameter that tells the trainings of one configuration apart."""
ENSEMBLE = "ensemble"


def train_final(
    study: Study | str | Path,
    *,
    run: str | None = None,
    pipeline: str | None = None,
    on_change: Callable[[StudyState], None] = lambda _: None,
) -> Study:
    """Trains the winner on all the data, `final.seeds` times, and returns that study; `promote_best` takes it on.

    The winner is what was last decided to be promoted, else the best trial with a checkpoint. Its study lives beside
    the other as `<name>-final`, or `<name>-final-<run>`, and is fixed by the first call: another one goes on with it,
    also after a kill. To train a later winner, name another `run`. `pipeline` names who carries the final
    study on, as for `open_study`. In the objective `tt.get_context().final` is true.
    Raises `NothingToPromote` where there is no winner.
    """
    parent = open_study(study)
    parent.refresh()
    final = open_study(_spec(parent, run), parent=parent.url, pipeline=pipeline)
    tune(final, on_change=on_change)
    if final.spec.final is not None and final.spec.final.ensemble:
        _assemble(final)
    return final


def study_to_promote(study: Study, *, on_change: Callable[[StudyState], None] = lambda _: None) -> Study:
    """The study whose model is promoted: that of the final training, where the spec asks for one, else this one."""
    asked = study.spec.final
    return study if asked is None or asked.of is not None else train_final(study, on_change=on_change)


def final_name(spec: StudySpec, run: str | None) -> str:
    """What the final study of a study is called."""
    try:
        return check_name(f"{spec.name}-final" if run is None else f"{spec.name}-final-{run}")
    except ValueError as error:
        raise ConfigError(f"run: {error}") from None


def winner(state: StudyState) -> tuple[int, int, float]:
    """The trial that the study puts forward, the step that its model is of, and its value there."""
    for key in reversed(state.steps):
        decided = state.steps[key]
        if key.endswith("/promote/decision") and decided["trial"] is not None:
            return decided["trial"], decided["step"], decided["value"]
    best = candidate(state)
    return best.trial, best.step, best.value


def _spec(parent: Study, run: str | None) -> StudySpec:
    name = final_name(parent.spec, run)
    begun = find_study(f"{parent.store}/{name}")
    if begun is not None:
        return derive(parent, begun.spec.record())
    return derive(parent, _changes(parent.state, name))


def _changes(state: StudyState, name: str) -> dict[str, Any]:
    """Where the spec of the final study differs from that of the study."""
    spec, final = state.spec, state.spec.final or Final()
    if final.seeds > 1 and SEED in spec.space.root:
        raise ConfigError(
            f"final.seeds: {final.seeds} is not allowed; the space has a parameter {SEED!r} of its own, "
            "which the trainings would overwrite"
        )
    number, step, value = winner(state)
    params = state.trials[number].params
    seeds = [{SEED: seed} for seed in range(final.seeds)] if final.seeds > 1 else [{}]
    origin = f"the winner, trial {number} of {spec.name}: {spec.metric} {value:.4g}"
    keep = {"keep_best": None} if final.ensemble else {}
    return {
        **({"objective": final.objective, "command": None} if final.objective else {}),
        "name": name,
        "space": _space(spec, params, final.seeds),
        "sampler": {"name": "grid"},
        "scheduler": {"name": "none", "max_budget": final.budget or step},
        "budget": {**spec.budget.model_dump(), "trials": final.seeds},
        "checkpoints": {**spec.checkpoints.model_dump(), **keep},
        "promotion": {**spec.promotion.model_dump(mode="json"), "model": spec.model, "owner": spec.owner},
        "final": {**final.model_dump(mode="json"), "of": spec.name},
        "start": [{"params": {**params, **seed}, "origin": origin} for seed in seeds],
    }


def _space(spec: StudySpec, params: dict[str, Any], seeds: int) -> dict[str, Any]:
    """The one configuration as a space: what was searched is a choice of one."""
    space: dict[str, Any] = {
        name: {"type": "constant", "value": value}
        if isinstance(spec.space[name], Constant)
        else {"type": "grid", "choices": [value]}
        for name, value in params.items()
    }
    return {**space, SEED: {"type": "grid", "choices": list(range(seeds))}} if seeds > 1 else space


def _assemble(final: Study) -> None:
    """Makes one model of all trainings: one more trial, whose checkpoint holds theirs, which are discarded."""
    state = final.refresh()
    members = _members(state)
    if state.steps.get(f"{ENSEMBLE}/sample") is not None or not members:
        return
    with tempfile.TemporaryDirectory(prefix="tune-tasks-") as scratch:
        for place, member in enumerate(members):
            checkpoints.fetch(final.objects, member.reference, Path(scratch) / f"member-{place}")
        made = checkpoints.publish(final.objects, Path(scratch), f"ckpt/{len(state.trials):06d}/1/1")
    gone = [saved.reference.key for saved in state.saved()]

    def make(state: StudyState) -> list[Event]:
        return [] if f"{ENSEMBLE}/sample" in state.steps else _events(state, members, made, final.now())

    commit(final, make)
    if made.key in final.state.checkpoint_keys():
        checkpoints.remove(final.objects, gone)


def _members(state: StudyState) -> list[Saved]:
    """The best checkpoint of each training that was completed, by the value reported with it."""
    found: dict[int, Saved] = {}
    for saved in state.saved():
        value = state.sign * state.reported(saved.trial, saved.step)
        known = found.get(saved.trial)
        if state.trials[saved.trial].state != "completed" or not math.isfinite(value):
            continue
        if known is None or value < state.sign * state.reported(known.trial, known.step):
            found[saved.trial] = saved
    return [found[number] for number in sorted(found)]


def _events(state: StudyState, members: list[Saved], made: CheckpointRef, time: float) -> list[Event]:
    """What makes the ensemble a trial; its value is the mean of its members'."""
    number, count = len(state.trials), len(members)
    values = [state.reported(member.trial, member.step) for member in members]
    params = {name: value for name, value in state.trials[0].params.items() if name != SEED}
    reason = f"the ensemble of {count} of {state.spec.budget.trials} trainings; its value is their mean"
    saved = list(state.saved())
    return [
        Planned(
            key=f"{ENSEMBLE}/sample",
            run=ENSEMBLE,
            round=0,
            batch=ENSEMBLE,
            proposals=(Proposal(number=number, params=params, reason=reason),),
            assignments=(Assignment(trial=number, budget=1, last=True, reason=reason),),
            exhausted=False,
            time=time,
        ),
        Started(trial=number, attempt=1, step=0, worker="", time=time),
        Reports(trial=[number], attempt=[1], step=[1], time=[time], metrics={state.spec.metric: [sum(values) / count]}),
        Checkpointed(trial=number, attempt=1, step=1, checkpoint=made, time=time),
        Ended(trial=number, attempt=1, outcome="reached", time=time),
        Discarded(
            trial=[item.trial for item in saved],
            step=[item.step for item in saved],
            keys=tuple(dict.fromkeys(item.reference.key for item in saved)),
            time=time,
        ),
    ]
