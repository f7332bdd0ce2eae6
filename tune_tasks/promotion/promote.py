"""The promote step: decides in the log, waits for approval where that is asked, carries out, then records the result.

A kill between any two of these is healed by running the step again: what was measured stays measured, and what was
decided stays decided. This module must not compare models itself (`contest` does), and must not move an alias before
the decision is in the log.
"""

from __future__ import annotations

from tune_tasks.events import Promoted, Promoting
from tune_tasks.promotion.approval import answer, moment, promotion_key
from tune_tasks.promotion.championship import champions
from tune_tasks.promotion.contest import contest
from tune_tasks.registry import Champions, ModelArtifact, carry_out, draft
from tune_tasks.retraining import superseded
from tune_tasks.studies import Study, append, record
from tune_tasks.study import StudyState
from tune_tasks.tracking.following import TURN, catch_up


def promote(study: Study, *, run: str) -> ModelArtifact:
    """Promotes the best trial of a study if it beats the champion; see `steps.promote_best`."""
    state = study.refresh()
    key = promotion_key(state, run)
    if key not in state.steps:
        held = champions(study)
        held.claim(state.spec.owner)
        catch_up(study, patience=TURN)  # a version in the registry names the run of its trial, which comes first
        if f"{key}/decision" not in state.steps:
            _decide(study, key, held)
        model = _outcome(study, Promoting(**study.state.steps[f"{key}/decision"]), held)
        if model.pending:
            return model
        done = Promoted(key=key, model=model.model_dump(mode="json"), time=study.now())
        if model.approval is None and not model.promoted:
            append(study, lambda state: None if _overtaken(state, key) else done)
        else:
            record(study, key, lambda _: done)
        if key not in study.state.steps:  # someone agreed in the moment in which it expired
            return promote(study, run=run)
    return ModelArtifact(**study.state.steps[key])


def _decide(study: Study, key: str, held: Champions) -> None:
    """Measures, compares, and records the decision; against the champion of the moment before that.

    A run that a later one of its series has overtaken does not promote, whatever its figures are.
    """
    champion, ledger = held.current(time=study.now())
    found = contest(study, key, held, champion)
    late = superseded(study, [reign.champion.study for reign in held.history()])
    promotion, passed = study.spec.promotion, found.passed and late is None
    time = study.now()
    decision = Promoting(
        key=key,
        trial=found.challenger.trial if passed else None,
        step=found.challenger.step if passed else None,
        value=found.challenger.value,
        champion=champion.model_dump(mode="json") if champion else None,
        position=study.log.head,
        ledger=ledger,
        gates=found.gates,
        evaluation=found.evaluation,
        bounds=found.bounds,
        expires=time + promotion.approval_time if passed and promotion.approval == "required" else None,
        reason=late or found.reason,
        time=time,
    )
    record(study, f"{key}/decision", lambda _: decision)


def _outcome(study: Study, decision: Promoting, held: Champions) -> ModelArtifact:
    """What becomes of a decision: it waits, it was refused, or it is carried out."""
    said, expires = answer(study.state, decision.key), decision.expires
    if expires is None or (said is not None and said.approved):
        return carry_out(study.objects, study.state, decision, held, folder=study.folder)
    model = draft(study.objects, study.state, decision)
    if said is not None:
        return model.model_copy(update={"promoted": False, "reason": f"rejected by {said.by}: {said.why}"})
    if study.now() < expires:
        how = f"tune-tasks approve|reject {study.url} --by NAME --why REASON"
        told = f"waits for approval until {moment(expires)} ({how}): {decision.reason}"
        return model.model_copy(update={"promoted": False, "pending": True, "reason": told})
    return model.model_copy(update={"promoted": False, "reason": f"nobody agreed until {moment(expires)}"})


def _overtaken(state: StudyState, key: str) -> bool:
    """Whether the result is there already, or an approval that was not known when it was made."""
    return key in state.steps or f"{key}/approval" in state.steps
