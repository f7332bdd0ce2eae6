"""Measures the models of a promotion, each with each seed, and records it: what was measured once is never again.

The values of single examples lie in an object below the study, named after its bytes, which the event names with its
digest. This module must not compare models, and must not record a decision.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from tune_tasks.errors import ConfigError, CorruptLog
from tune_tasks.events import Evaluated
from tune_tasks.registry import Candidate, Champion, Champions, pickles
from tune_tasks.registry.evaluate import evaluate, latency, size_of
from tune_tasks.registry.evaluation import Measured, Repeat
from tune_tasks.registry.retrieve import bring_champion
from tune_tasks.spec import StudySpec
from tune_tasks.store import Objects, fetch, open_objects
from tune_tasks.store.segment import fingerprint
from tune_tasks.studies import Study, record
from tune_tasks.study import StudyState


def name_of(candidate: Candidate) -> str:
    """What a candidate is called in events."""
    return f"trial-{candidate.trial}-{candidate.step}"


def evaluates(spec: StudySpec, candidate: Candidate) -> bool:
    """Whether models are measured with the spec's `evaluate`; parameters alone have nothing to load."""
    return spec.promotion.evaluate is not None and candidate.checkpoint is not None


def measure_candidate(study: Study, key: str, candidate: Candidate) -> Measured:
    """Measures a candidate as often as the spec says; without `evaluate`, once where limits or gates need it.

    Then its numbers are those that it reported. Raises `ConfigError` where it cannot be measured.
    """
    spec, model = study.spec, name_of(candidate)
    asks = bool(spec.promotion.limits or spec.promotion.gates)
    repeats = spec.promotion.repeats if evaluates(spec, candidate) else int(asks)
    with ExitStack() as stack:
        bring = _once(lambda target: fetch(study.objects, candidate.checkpoint, target), stack)  # type: ignore[arg-type]  # called where there is one
        for seed in _left(study.state, key, model, repeats):
            _keep(study, key, model, seed, _measure(study, candidate, seed, bring))
    return measured(study.objects, study.state, key, model)


def measure_champion(study: Study, key: str, held: Champions, champion: Champion) -> Measured:
    """Measures the champion on the same data; where it cannot be, that is recorded, and told as its error."""
    model, promotion = f"version-{champion.version}", study.spec.promotion
    with ExitStack() as stack:
        home = champion_objects(study, champion)
        bring = _once(lambda target: bring_champion(home, held.registry, held.model, champion, target), stack)
        for seed in _left(study.state, key, model, promotion.repeats):
            try:
                folder = _checked(study.spec, bring())
                found = _evaluate(study, folder, seed)
            except (ConfigError, CorruptLog) as error:
                _record(study, key, model, seed, error=str(error))
                break
            _keep(study, key, model, seed, _with(found, {"size": float(size_of(folder))}))
    return measured(study.objects, study.state, key, model)


def measured(objects: Objects, state: StudyState, key: str, model: str) -> Measured:
    """What the log says that a model measured, seed by seed. Raises `CorruptLog` where values of examples are gone."""
    found = (state.steps.get(f"{key}/{model}/{seed}") for seed in range(state.spec.promotion.repeats))
    rows = [row for row in found if row is not None]
    error = next((row["error"] for row in rows if row["error"] is not None), None)
    return Measured(model, error=error) if error else Measured(model, tuple(_read(objects, row) for row in rows))


def champion_objects(study: Study, champion: Champion) -> Objects | None:
    """The objects of the study that the champion comes from; a study beside this one is opened as this one was."""
    if champion.study is None or champion.study == study.url:
        return study.objects if champion.study else None
    store, _, name = champion.study.rpartition("/")
    return open_objects(f"{study.store}/{name}" if store == study.url.rpartition("/")[0] else champion.study)


def _measure(study: Study, candidate: Candidate, seed: int, bring: Callable[[], Path]) -> Repeat:
    """One evaluation of a candidate, and what limits name beside it; a metric of the user's own comes first."""
    spec, trial = study.spec, study.state.trials[candidate.trial]
    numbers: dict[str, float] = {}
    if candidate.checkpoint is not None:
        numbers["size"] = float(candidate.checkpoint.size)
    if "train_seconds" in spec.promotion.limits:
        numbers["train_seconds"] = trial.seconds
    if "latency" in spec.promotion.limits and candidate.checkpoint is not None:
        numbers["latency"] = latency(spec.promotion, study.folder, _checked(spec, bring()))
    if not evaluates(spec, candidate):
        return Repeat({**numbers, **trial.reports[candidate.step - 1].metrics})
    return _with(_evaluate(study, _checked(spec, bring()), seed), numbers)


def _evaluate(study: Study, folder: Path, seed: int) -> Repeat:
    spec = study.spec
    target, metric = str(spec.promotion.evaluate), spec.promotion.metric or spec.metric
    return evaluate(target, study.folder, folder, metric=metric, seed=seed, data=spec.data)


def _checked(spec: StudySpec, folder: Path) -> Path:
    """The folder, if it may be loaded at all: `evaluate` would run what is pickled in it."""
    pickles.refuse(folder, allowed=spec.promotion.pickle)
    return folder


def _with(found: Repeat, numbers: Mapping[str, float]) -> Repeat:
    return Repeat({**numbers, **found.metrics}, found.examples, found.slices)


def _left(state: StudyState, key: str, model: str, repeats: int) -> Iterable[int]:
    """The seeds with which a model has not been measured yet; none after one that failed."""
    known = [state.steps.get(f"{key}/{model}/{seed}") for seed in range(repeats)]
    if any(row is not None and row["error"] is not None for row in known):
        return []
    return [seed for seed, row in enumerate(known) if row is None]


def _once(bring: Callable[[Path], Path], stack: ExitStack) -> Callable[[], Path]:
    """Brings files when they are first asked for, and not again."""
    found: list[Path] = []

    def get() -> Path:
        if not found:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="tune-tasks-"))
            found.append(bring(Path(scratch) / "model"))
        return found[0]

    return get


def _keep(study: Study, key: str, model: str, seed: int, found: Repeat) -> None:
    """Records a measurement: first the values of its examples, then the event that names them."""
    if not found.examples:
        _record(study, key, model, seed, metrics=dict(found.metrics))
        return
    data = orjson.dumps({"examples": found.examples, "slices": found.slices})
    digest = fingerprint(data)
    place = f"evaluations/{hashlib.sha256(key.encode()).hexdigest()[:8]}/{model}-{seed}-{digest[:8]}.json"
    study.objects.create(place, data)
    _record(study, key, model, seed, metrics=dict(found.metrics), examples=found.size, place=place, digest=digest)


def _record(study: Study, key: str, model: str, seed: int, **told: Any) -> None:
    event = Evaluated(**{"metrics": {}, **told}, key=key, model=model, seed=seed, time=study.now())
    record(study, f"{key}/{model}/{seed}", lambda _: event)


def _read(objects: Objects, row: Mapping[str, Any]) -> Repeat:
    metrics: dict[str, float] = dict(row["metrics"])
    if row["place"] is None:
        return Repeat(metrics)
    data = objects.read(str(row["place"]))
    if data is None or fingerprint(data) != row["digest"]:
        found = "is missing" if data is None else f"has SHA-256 {fingerprint(data)}, the log says {row['digest']}"
        raise CorruptLog(f"{objects.url}/{row['place']}: {found}; promote again under another run")
    whole = orjson.loads(data)
    return Repeat(metrics, whole["examples"], whole["slices"])
