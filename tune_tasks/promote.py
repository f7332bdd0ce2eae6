"""The promote step: decides in the log, then carries out, then records the result.

A kill between any two of these is healed by running the step again: what was decided stays decided. This module must
not compare models itself (`registry` does), and must not move an alias before the decision is in the log.
"""

from __future__ import annotations

import time

from tune_tasks.championship import champions
from tune_tasks.events import Promoted, Promoting
from tune_tasks.registry import Champions, ModelArtifact, candidate, carry_out, decide_promotion
from tune_tasks.studies import Study, record
from tune_tasks.study import StudyState
from tune_tasks.tracking import mirror


def promote(study: Study, *, run: str) -> ModelArtifact:
    """Promotes the best trial of a study if it beats the champion; see `steps.promote_best`."""
    state = study.refresh()
    key = f"{run}-{state.rounds.get(run, 0):04d}/promote"
    if key not in state.steps:
        held = champions(study)
        held.claim(state.spec.owner)
        if held.registry is not None:
            mirror(state, study.url, held.registry.uri)
        decided = record(study, f"{key}/decision", lambda state: _decide(state, study.log.head, key, held))
        model = carry_out(study.objects, study.state, Promoting(**decided), held, folder=study.folder)
        done = Promoted(key=key, model=model.model_dump(mode="json"), time=time.time())
        record(study, key, lambda _: done)
    return ModelArtifact(**study.state.steps[key])


def _decide(state: StudyState, position: int, key: str, held: Champions) -> Promoting:
    promotion, best = state.spec.promotion, candidate(state)
    champion, ledger = held.current(time=time.time())
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
        ledger=ledger,
        reason=reason,
        time=time.time(),
    )
