"""Extends a study, finished or not: more trials, longer budgets, a wider space, another sampler, each in the log.

What was tried stays what it is: nothing is proposed again, and no configuration may fall out of the space. This module
must not run a trial: the study is open again, and whoever runs it goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tune_tasks import plugins
from tune_tasks.errors import ConfigError, invalid
from tune_tasks.events import Amended, Event, Opened
from tune_tasks.points import point
from tune_tasks.space import Categorical, Constant, Float, Int, Space
from tune_tasks.spec import StudySpec, differences, load_spec, section_of
from tune_tasks.studies import AMENDABLE, SEARCH, Study, commit, open_study, owner
from tune_tasks.study import StudyState, Trial

EXTENDABLE = AMENDABLE | SEARCH


def extend(
    study: Study | str | Path,
    *,
    trials: int | None = None,
    max_budget: int | None = None,
    space: Mapping[str, Any] | None = None,
    sampler: str | Mapping[str, Any] | None = None,
    scheduler: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Study:
    """Changes what a study may still do, opens it again, and returns it; `tune` or the steps then go on with it.

    `trials` and `max_budget` (in steps) are the new totals. `space` names parameters with their new declaration, or
    with the keys of it that change: it may only become wider. `sampler` learns from all trials. `scheduler` gives
    options of the scheduler. `changes` maps any dotted path to its value, as `--set` does. Trials that were complete
    at the old `max_budget` are judged again. A driver at work is fenced where the search itself changes.
    Called again with the same, it does nothing. Raises `ConfigError` for what cannot change, and says why.
    """
    opened = open_study(study)
    wanted = _wanted(trials, max_budget, sampler, scheduler, changes)

    def make(state: StudyState) -> list[Event]:
        new = _extended(state.spec, wanted, space or {})
        found = differences(state.spec.record(), new.record())
        if not found:
            return []
        _check(state, new, found)
        now = opened.now()
        amended = Amended(spec=new.record(), changes=tuple(found), reopened=tuple(_reopened(state, new)), time=now)
        # A driver at work was built from what the search was, and would go on to judge by it.
        fences = any(section_of(line) in SEARCH for line in found) and (state.since is not None or state.job > 0)
        by = f"{owner()} for an extension"
        return [Opened(epoch=state.epoch + 1, owner=by, time=now), amended] if fences else [amended]

    commit(opened, make)
    return opened


def _wanted(
    trials: int | None,
    max_budget: int | None,
    sampler: str | Mapping[str, Any] | None,
    scheduler: Mapping[str, Any] | None,
    changes: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The changes by dotted path."""
    options = {**(scheduler or {}), **({} if max_budget is None else {"max_budget": max_budget})}
    given = {"budget.trials": trials, "sampler": sampler}
    return {
        **{path: value for path, value in given.items() if value is not None},
        **{f"scheduler.{name}": value for name, value in options.items()},
        **(changes or {}),
    }


def _extended(spec: StudySpec, wanted: Mapping[str, Any], space: Mapping[str, Any]) -> StudySpec:
    parameters = {path.removeprefix("space."): value for path, value in wanted.items() if path.startswith("space.")}
    data = spec.record()
    for name, value in {**parameters, **space}.items():
        _declare(data["space"], name, value)
    return load_spec(data, {path: value for path, value in wanted.items() if not path.startswith("space.")})


def _declare(space: dict[str, Any], name: str, value: Any) -> None:
    """Changes a parameter, or one key of it where `name` goes on after that of a parameter; else adds one."""
    known = next((known for known in sorted(space, key=len, reverse=True) if f"{name}.".startswith(f"{known}.")), None)
    if known is None:
        space[name] = value
    elif known != name:
        space[known] = {**space[known], name.removeprefix(f"{known}."): value}
    elif isinstance(value, Mapping) and "type" not in value:
        space[known] = {**space[known], **value}
    else:
        space[known] = value


def _check(state: StudyState, new: StudySpec, found: Sequence[str]) -> None:
    frozen = [line for line in found if section_of(line) not in EXTENDABLE]
    if frozen:
        lines = "\n".join(f"  {line}" for line in frozen)
        raise ConfigError(
            f"extend: a study cannot be another one:\n{lines}\nWhat can change is {', '.join(sorted(EXTENDABLE))}; "
            "for the rest begin a new study, with the best of this one as its `start`."
        )
    plugins.sampler(new)
    _check_scheduler(state.spec, new)
    if wrong := [*_narrower(state.spec.space, new.space), *_fallen(state.trials, new.space)]:
        raise ConfigError("\n".join(wrong))


def _check_scheduler(old: StudySpec, new: StudySpec) -> None:
    if old.scheduler.name != new.scheduler.name:
        allowed = f"the trials so far were judged by {old.scheduler.name!r}; begin a new study for another one"
        raise invalid("scheduler.name", new.scheduler.name, allowed)
    before, after = plugins.scheduler(old).max_budget, plugins.scheduler(new).max_budget
    if before is not None and (after is None or after < before):
        raise invalid("scheduler.max_budget", after, f"trials were given {before} already; it can only become larger")


def _reopened(state: StudyState, new: StudySpec) -> Iterator[int]:
    """The trials that were to end, or have ended, at a budget that is not the largest any more.

    One whose objective returned by itself has nothing more to do.
    """
    largest = plugins.scheduler(new).max_budget
    for trial in state.trials:
        end = _end(trial)
        if largest is not None and end is not None and end < largest:
            yield trial.number


def _end(trial: Trial) -> int | None:
    """The budget at which a trial was, or will be, complete without another decision."""
    match trial.state:
        case "completed":
            return trial.target if trial.last and trial.budget >= (trial.target or 0) else None
        case "queued" | "running":
            return trial.target if trial.last else None
        case "paused" if trial.advance is not None and trial.advance.last:
            return trial.advance.budget
        case _:
            return None


def _narrower(old: Space, new: Space) -> Iterator[str]:
    """Where a space lacks something of the old one, or has what the trials so far have no value for."""
    for name in old:
        if name not in new.root:
            yield f"space.{name}: is gone; the trials so far have a value for it, so it must stay"
        elif lost := _lost(old[name], new[name]):
            yield f"space.{name}: {lost} would not be allowed any more; a space may only become wider"
    for name in new:
        if name not in old.root and not isinstance(new[name], Constant):
            yield (
                f"space.{name}: is new, and the trials so far have no value for it; it can be a constant, "
                "which they are taken to have had, or be searched in a new study"
            )


def _lost(old: Any, new: Any) -> str:
    """What an old parameter could be and the new one cannot; "" where there is nothing."""
    match old:
        case Categorical():
            return ", ".join(repr(choice) for choice in old.choices if not new.contains(choice))
        case Constant():
            return "" if new.contains(old.value) else repr(old.value)
        case Float() | Int() if not isinstance(new, Float | Int) or (isinstance(old, Float) and isinstance(new, Int)):
            return f"every {old.type} from {old.low:g} to {old.high:g}"
        case _:
            ends = [f"{end:g}" for end in (old.low, old.high) if not new.low <= end <= new.high]
            return ", ".join(ends) or ("" if _finer(old, new) else f"steps of {old.step or 'any size'}")


def _finer(old: Float | Int, new: Float | Int) -> bool:
    """Tells whether what the steps of the old range meet, those of the new one do too."""
    if isinstance(new, Float) and new.step is None:
        return True
    if old.step is None or not new.contains(old.low):
        return False
    ratio = old.step / (new.step or 1)
    return abs(ratio - round(ratio)) < 1e-9


def _fallen(trials: Sequence[Trial], new: Space) -> Iterator[str]:
    """The trials that would lie outside of the space, such as by a condition that changed; the first few of them."""
    outside = ((trial, new.problems(point(new, trial.params))) for trial in trials)
    for _, (trial, problems) in zip(range(3), ((t, p) for t, p in outside if p), strict=False):
        yield f"space: trial {trial.number} would lie outside: {'; '.join(problems)}"
