"""The decision of a promotion: the best candidate, and every gate that it is put to.

This module must not record the decision, and must not change the champion: `promote` does.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from tune_tasks.errors import ConfigError, CorruptLog
from tune_tasks.events import Gate
from tune_tasks.promotion.measuring import champion_objects, evaluates, measure_candidate, measure_champion, measured
from tune_tasks.registry import Candidate, Champion, Champions, candidates, decide_promotion, gates
from tune_tasks.registry.evaluation import Measured, Repeat, Summary
from tune_tasks.registry.retrieve import champion_params
from tune_tasks.spec import resolve
from tune_tasks.studies import Study


@dataclass(frozen=True, slots=True)
class Contest:
    """What a promotion came to. `evaluation` and `bounds` are the challenger's."""

    challenger: Candidate
    gates: tuple[Gate, ...]
    evaluation: dict[str, float]
    bounds: dict[str, tuple[float, float]]

    @property
    def passed(self) -> bool:
        """Whether every gate says yes."""
        return all(gate.passed for gate in self.gates)

    @property
    def reason(self) -> str:
        """Why, in figures."""
        told = gates.verdict(self.gates)
        if self.passed or not self.evaluation:
            return told
        return f"trial {self.challenger.trial} at step {self.challenger.step} is not promoted: {told}"


def contest(study: Study, key: str, held: Champions, champion: Champion | None) -> Contest:
    """Measures what has not been measured under this step key, and puts the best candidate to every gate.

    Raises `ConfigError` where something cannot be measured, or not compared; `NothingToPromote`, `Unavailable`.
    """
    promotion = study.spec.promotion
    entrants = candidates(study.state, promotion.candidates if promotion.evaluate else 1)
    if evaluates(study.spec, entrants[0]):
        return _by_evaluation(study, key, held, champion, entrants)
    if promotion.slices is not None:
        raise ConfigError("promotion.slices: slices are what evaluate returns of a checkpoint; there is none of them")
    challenger = entrants[0]
    ours, rival = measure_candidate(study, key, challenger), None
    if champion is not None and champion.metric is not None and champion.value is not None:
        rival = Measured(f"version-{champion.version}", (Repeat({champion.metric: champion.value}),))
    return _finish(study, key, challenger, [_by_report(study, challenger, champion)], ours, champion, rival)


def _by_evaluation(
    study: Study, key: str, held: Champions, champion: Champion | None, entrants: list[Candidate]
) -> Contest:
    promotion = study.spec.promotion
    rules = gates.Rules(
        metric=promotion.metric or study.spec.metric,
        mode=promotion.mode or study.spec.mode,
        min_improvement=promotion.min_improvement,
        confidence=promotion.confidence,
        candidates=len(entrants),
        key=key,
    )
    models = [measure_candidate(study, key, each) for each in entrants]
    rival = measure_champion(study, key, held, champion) if champion is not None else None
    error = rival.error if rival is not None else None
    gates.check_comparable([*models, *([rival] if rival is not None and error is None else [])], rules.metric)
    best = min(range(len(entrants)), key=lambda at: (rules.sign * models[at].metrics[rules.metric], at))
    if rival is not None and error is not None:
        first = [_broken(study, rival.model, error)]
        rival = None
    else:
        first = [gates.improvement(models[best], rival, rules)]
    if promotion.slices is not None:
        first.append(gates.slices(models[best], rival, rules, promotion.slices))
    return _finish(study, key, entrants[best], first, models[best], champion, rival)


def _finish(
    study: Study,
    key: str,
    challenger: Candidate,
    first: list[Gate],
    ours: Measured,
    champion: Champion | None,
    rival: Measured | None,
) -> Contest:
    """Adds the gates that are about the challenger alone, and the user's own."""
    promotion = study.spec.promotion
    found = [*first, *gates.limits(ours, promotion.limits)]
    if promotion.gates:
        params = study.state.trials[challenger.trial].params
        theirs = None
        if champion is not None:
            known = champion_params(champion_objects(study, champion), champion)
            theirs = _summary(study, key, rival or Measured(f"version-{champion.version}"), known)
        mine = _summary(study, key, ours, params)
        found += [
            gates.own(name, resolve(name, "promotion.gates", study.folder), mine, theirs) for name in promotion.gates
        ]
    return Contest(challenger, tuple(found), ours.metrics, _bounds(study, key, ours))


def _by_report(study: Study, challenger: Candidate, champion: Champion | None) -> Gate:
    spec = study.spec
    better, reason = decide_promotion(
        challenger.value,
        champion,
        metric=spec.metric,
        mode=spec.mode,
        min_improvement=spec.promotion.min_improvement,
    )
    return Gate(name="improvement", passed=better, reason=reason, limit=spec.promotion.min_improvement)


def _broken(study: Study, model: str, error: str) -> Gate:
    """The gate in place of a comparison, where the champion does not load any more."""
    promotion = study.spec.promotion
    replaced = promotion.broken_champion == "replace"
    what = "is replaced" if replaced else "stays"
    told = f"the champion ({model.replace('-', ' ')}) could not be measured, and {what} (promotion.broken_champion: "
    return Gate(
        name="improvement",
        passed=replaced,
        reason=f"{told}{promotion.broken_champion}): {error}",
        limit=promotion.min_improvement,
    )


def bounds_of(study: Study, key: str) -> dict[str, dict[str, tuple[float, float]]]:
    """The bounds of every model that was measured under a step key; none of one whose values are gone."""
    models = {row["model"] for step, row in study.state.steps.items() if step.startswith(f"{key}/") and "seed" in row}
    found = {}
    for model in sorted(models):
        with contextlib.suppress(CorruptLog):
            found[model] = _bounds(study, key, measured(study.objects, study.state, key, model))
    return found


def _summary(study: Study, key: str, model: Measured, params: dict[str, object]) -> Summary:
    size = model.metrics.get("size")
    return Summary(
        model=model.model,
        metrics=model.metrics,
        bounds=_bounds(study, key, model),
        params=params,
        size=None if size is None else int(size),
    )


def _bounds(study: Study, key: str, model: Measured) -> dict[str, tuple[float, float]]:
    return gates.bounds(model, confidence=study.spec.promotion.confidence, key=key)
