"""The promote step: decides in the log, then carries out, then records the result.

A kill between any two of these is healed by running the step again: what was decided stays decided. This module must
not compare models itself (`registry` does), and must not move an alias before the decision is in the log.
"""

from __future__ import annotations

import time

from tune_tasks.events import Promoted, Promoting
from tune_tasks.registry import Champion, ModelArtifact, Registry, candidate, carry_out, decide_promotion, default_uri
from tune_tasks.studies import Study, record
from tune_tasks.study import StudyState
from tune_tasks.tracking import mirror


def promote(study: Study, *, run: str) -> ModelArtifact:
    """Promotes the best trial of a study if it beats the champion; see `steps.promote_best`."""
    state = study.refresh()
    key = f"{run}-{state.rounds.get(run, 0):04d}/promote"
    if key not in state.steps:
        uri = default_uri(state.spec.promotion.registry, study.url.rpartition("/")[0])
        registry = Registry(uri) if uri else None
        if uri:
            mirror(state, study.url, uri)
        decided = record(study, f"{key}/decision", lambda state: _decide(state, study.log.head, key, registry))
        decision = Promoting(**decided)
        model = carry_out(
            study.objects, study.state, decision, registry, position=decision.position, folder=study.folder
        )
        done = Promoted(key=key, model=model.model_dump(mode="json"), time=time.time())
        record(study, key, lambda _: done)
    return ModelArtifact(**study.state.steps[key])


def _decide(state: StudyState, position: int, key: str, registry: Registry | None) -> Promoting:
    promotion, best = state.spec.promotion, candidate(state)
    name = promotion.model or state.spec.name
    champion = registry.champion(name, promotion.alias) if registry else _last_promoted(state)
    better, reason = decide_promotion(
        best.value,
        champion,
        metric=state.spec.metric,
        mode=state.spec.mode,
        min_improvement=promotion.min_improvement,
    )
    return Promoting(
        key=key,
        trial=best.trial if better else None,
        step=best.step if better else None,
        value=best.value,
        champion=champion.model_dump(mode="json") if champion else None,
        position=position,
        reason=reason,
        time=time.time(),
    )


def _last_promoted(state: StudyState) -> Champion | None:
    """What holds the place of the champion where there is no registry: what this study promoted last."""
    models = [model for model in state.promotions if model["promoted"]]
    if not models:
        return None
    last = ModelArtifact(**models[-1])
    return Champion(
        version=str(len(models)),
        uri=last.uri or "",
        value=last.value,
        metric=last.metric,
        mode=last.mode,
        trial=last.trial,
        study=last.study,
        path=last.path,
    )
