"""The next run of a schedule: a new study that begins with the best configurations of the last one, or none at all.

The runs of a series stand in a ledger beside its studies, in the order in which they began. This module must not run
a trial and must not promote: it says which study is the run's, and which runs may not promote any more.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tune_tasks.errors import ConfigError
from tune_tasks.points import point, same
from tune_tasks.space import Constant, Params, Space
from tune_tasks.spec import StudySpec, check_name, load_spec
from tune_tasks.store import open_objects
from tune_tasks.store.ledger import Ledger
from tune_tasks.studies import Study, check_pipeline, find_study, open_study, study_url
from tune_tasks.study import StudyState, Trial

FOLDER = "_series"
"""Where the ledgers lie, beside the studies of a store."""


@dataclass(frozen=True, slots=True)
class Retraining:
    """What came of a run of a schedule: its study, or None where it is skipped; `reason` says why, or from what."""

    series: str
    run: str
    study: Study | None
    reason: str
    previous: str | None = None
    """URL of the run's study that it goes on from."""


def retrain(
    spec: StudySpec | Mapping[str, Any] | str | Path,
    *,
    run: str,
    data: str | None = None,
    amend: bool = False,
    pipeline: str | None = None,
) -> Retraining:
    """Opens the study of the next run of a schedule, `<name>-<run>`, and creates it where it is not there.

    `run` comes from the schedule, such as its date, so that a task that is retried finds its own study. `data` says
    what is trained on, by default the spec's: a version, a digest (see `fingerprint`), or a URL. The best
    `retrain.warm_start` configurations of the last run that still fit the space are tried first. Nothing is created
    where the data is that of the last run, or the last promotion was refused within `retrain.cooldown`.
    Raises `ConfigError` where the run was begun with other data, or the series is that of another `pipeline`.
    """
    given = spec if isinstance(spec, StudySpec) else load_spec(spec)
    given = given.changed({"series": given.series or given.name, "data": data or given.data})
    series = _Series(given, pipeline)
    mine = series.enter(run)
    if isinstance(mine, str):
        return Retraining(series.name, run, None, mine)
    found = find_study(series.url(mine))
    last = series.before(mine)
    if found is None:
        start, reason = _start(given, last)
    else:
        start, reason = found.spec.record()["start"], "goes on: it was begun already"
    made = given.changed({"name": mine["study"], "start": start})
    parent = last.url if last is not None else None
    study = open_study(made, amend=amend, parent=parent, pipeline=pipeline)
    return Retraining(series.name, run, study, reason, parent)


def superseded(study: Study, champions: Iterable[str | None]) -> str | None:
    """Says why the study of a run may not promote any more: a later run of its series has; None where it may.

    `champions` are the URLs of the studies that the model's champions came from, so far. A study that is no run of a
    series is never superseded.
    """
    if study.spec.series is None:
        return None
    final = study.spec.final
    own = (final.of if final is not None else None) or study.spec.name
    entries = _ledger(study.store, study.spec.series).entries()
    place = next((place for place, entry in enumerate(entries) if entry["study"] == own), None)
    if place is None:
        return None
    names = {str(url).rpartition("/")[2] for url in champions if url}
    for later in entries[place + 1 :]:
        if any(name == later["study"] or name.startswith(f"{later['study']}-final") for name in names):
            run = entries[place]["run"]
            return (
                f"run {run} of {study.spec.series} is superseded: run {later['run']}, which began later, has promoted"
            )
    return None


class _Series:
    """The runs of one schedule."""

    def __init__(self, spec: StudySpec, pipeline: str | None) -> None:
        self.name = spec.series or spec.name
        self._pipeline = pipeline
        self._spec, self._store = spec, study_url(spec).rpartition("/")[0]
        self._ledger = _ledger(self._store, self.name)
        self.entries: list[dict[str, Any]] = []

    def url(self, entry: Mapping[str, Any]) -> str:
        """Where the study of a run lies."""
        return f"{self._store}/{entry['study']}"

    def enter(self, run: str) -> dict[str, Any] | str:
        """The entry of a run, added to the ledger where it is new; or why there shall be none."""
        by = {"pipeline": self._pipeline} if self._pipeline else {}
        entry = {"run": run, "study": self._study_of(run), "data": self._spec.data, **by}
        while True:
            self.entries = self._ledger.entries()
            held = next((known["pipeline"] for known in self.entries if known.get("pipeline")), None)
            check_pipeline(f"series: {self.name}", held, self._pipeline)
            known = next((known for known in self.entries if known["run"] == run), None)
            if known is not None:
                return self._checked(known)
            reason = self._unwanted()
            if reason is not None:
                return reason
            if self._ledger.append(entry, after=len(self.entries)):
                self.entries.append(entry)
                return entry

    def before(self, entry: Mapping[str, Any]) -> Study | None:
        """The newest study of an earlier run that has a trial to learn from."""
        earlier = self._begun(self.entries[: self.entries.index(dict(entry))])
        return next((study for _, study in earlier if study.best is not None), None)

    def _begun(self, entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Study]]:
        """The studies of these runs that there are, the newest first, each with what it is called.

        At last the study that the schedule began as, which has the name of the series.
        """
        for entry in reversed(entries):
            if (study := find_study(self.url(entry))) is not None:
                yield f"run {entry['run']}", study
        if (study := find_study(f"{self._store}/{self.name}")) is not None:
            yield f"study {self.name}", study

    def _study_of(self, run: str) -> str:
        try:
            return check_name(f"{self.name}-{run}")
        except ValueError as error:
            raise ConfigError(f"run: {error}") from None

    def _checked(self, known: dict[str, Any]) -> dict[str, Any]:
        if known["data"] != self._spec.data:
            raise ConfigError(
                f"data: {self._spec.data!r} is not allowed; run {known['run']} of {self.name} was begun with "
                f"{known['data']!r}; give the new data a run of its own"
            )
        return known

    def _unwanted(self) -> str | None:
        """Why there shall be no new run now."""
        retrain, data = self._spec.retrain, self._spec.data
        called, last = next(self._begun(self.entries), ("", None))
        if last is None:
            return None
        if retrain.skip_unchanged and data is not None and last.spec.data == data:
            so_far = "" if last.state.done else ", which is not finished: go on with that"
            return f"the data is {data!r} still, as in {called}{so_far}"
        if retrain.cooldown is None:
            return None
        refused = _refused(last)
        until = (refused["created"] if refused else 0.0) + retrain.cooldown
        if refused is None or time.time() >= until:
            return None
        when = datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds")
        return f"cooled down until {when}: the model of {called} was refused: {refused['reason']}"


def _ledger(store: str, series: str) -> Ledger:
    return Ledger(open_objects(f"{store}/{FOLDER}"), series)


def _refused(study: Study) -> dict[str, Any] | None:
    """The last promotion of a run, where it was refused: that of its final study, if there is one."""
    final = find_study(f"{study.url}-final")
    promotions = [*study.state.promotions, *(final.state.promotions if final is not None else ())]
    last = max(promotions, key=lambda model: model["created"], default=None)
    return last if last is not None and not last["promoted"] else None


def _start(spec: StudySpec, last: Study | None) -> tuple[list[dict[str, Any]], str]:
    """What is tried first: what the spec gives, then the best of the last run that differ; and a line about it."""
    start = [given.model_dump(mode="json") for given in spec.start]
    if last is None:
        return start, "begins afresh: there is no earlier run to learn from"
    warm: list[dict[str, Any]] = []
    for trial, params in _fitting(last.state, spec.space):
        if len(warm) == spec.retrain.warm_start:
            break
        if not any(same(spec.space, params, known["params"]) for known in (*start, *warm)):
            origin = f"from trial {trial.number} of {last.spec.name}: {last.spec.metric} {trial.value:.4g}"
            warm.append({"params": params, "origin": origin})
    return [*start, *warm], f"begins with {len(warm)} configurations of {last.spec.name}"


def _fitting(state: StudyState, space: Space) -> Iterator[tuple[Trial, Params]]:
    """The trials that are points of the space, the best first; constants are those of the space."""
    old = state.spec.space
    for trial in sorted(state.ranked(), key=lambda trial: (state.sign * (trial.value or 0.0), trial.number)):
        searched = {
            name: value
            for name, value in trial.params.items()
            if name not in old.root
            or not isinstance(old[name], Constant)
            or (name in space.root and not isinstance(space[name], Constant))
        }
        params = point(space, searched)
        if not space.problems(params):
            yield trial, params
