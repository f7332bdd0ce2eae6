"""A promotion that waits for a person: Airflow asks, with the leaderboard before their eyes, and the study is told.

Loading Airflow's human-in-the-loop operators takes a DAG file some tenth of a second, so they have a module of their
own here. Whether anyone has to agree says the engine; this module must not decide that, nor carry a promotion out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk import Param, chain

from tune_tasks_airflow.links import StudyLink, show_study
from tune_tasks_airflow.operators import PromoteBestOperator, StepOperator, run_name
from tune_tasks_airflow.rounds import TuneTaskGroup
from tune_tasks_airflow.stores import opened

if TYPE_CHECKING:
    from airflow.sdk import Asset, AssetAlias, Context, XComArg

    from tune_tasks.studies import Study


class AskOperator(ApprovalOperator):
    """Airflow's `ApprovalOperator`, for a promotion that waits: its body is the leaderboard, and it asks for a reason.

    `model` is what a `PromoteBestOperator` returned. Where that does not wait, or someone has answered by other means
    (`tune-tasks approve`), the task is skipped; so it is where nobody answers until the engine lets the promotion
    expire (`promotion.approval_time`). Unlike its parent it lets what follows run after a rejection too, for the study
    has to be told.
    """

    template_fields = (*ApprovalOperator.template_fields, "model", "run", "store_conn_id")
    operator_extra_links = (StudyLink(),)

    def __init__(
        self,
        *,
        model: Mapping[str, Any] | XComArg,
        run: str | None = None,
        store_conn_id: str | None = None,
        subject: str = "Is this model to become the champion?",
        **kwargs: Any,
    ) -> None:
        # Of its own alone: Airflow hands the parameters of the DAG over too, which are not to be asked for again.
        why = Param("", description="the reason, for the study's log", source="task", type="string", title="Why")
        super().__init__(subject=subject, **{**kwargs, "params": {"why": why}})
        self.model = model
        self.run = run
        self.store_conn_id = store_conn_id

    def execute(self, context: Context) -> Any:
        """Asks, if there is something to ask."""
        from airflow.providers.common.compat.sdk import AirflowSkipException  # at home elsewhere in 3.1

        with opened(self.store_conn_id):
            left = self._prepare(context, self.run or run_name(context["dag"].dag_id, context["run_id"]))
        if isinstance(left, str):
            raise AirflowSkipException(left)
        self.response_timeout = left
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Returns who answered what. Its parent, after a rejection, would end here without saying who that was."""
        return HITLOperator.execute_complete(self, context, event)

    def process_trigger_event_error(self, event: dict[str, Any]) -> None:
        """Skips where nobody answered in time: the promotion has expired, and the promote step records that."""
        from airflow.providers.common.compat.sdk import AirflowSkipException

        if event["error_type"] == "timeout":
            raise AirflowSkipException("nobody answered in time")
        super().process_trigger_event_error(event)

    def _prepare(self, context: Context, run: str) -> timedelta | str:
        """Fills in the body; returns how long the promotion waits yet, or why nobody is to be asked."""
        from tune_tasks.promotion.approval import answer, promotion_key
        from tune_tasks.promotion.leaderboard import leaderboard
        from tune_tasks.studies import open_study
        from tune_tasks.views.promotion import as_markdown

        if not self.model["pending"]:  # type: ignore[index]  # it is rendered by now
            return f"nothing waits for approval: {self.model['reason']}"  # type: ignore[index]
        study = open_study(self.model["study"])  # type: ignore[index]
        show_study(context, study)
        standings = leaderboard(study, run=run)
        key = promotion_key(study.state, run)
        said = answer(study.state, key)
        if said is not None:
            return f"the promotion was {'approved' if said.approved else 'rejected'} by {said.by} already"
        self.body = f"{study.url}\n\n{as_markdown(standings)}"
        left: float = study.state.steps[f"{key}/decision"]["expires"] - study.now()
        return timedelta(seconds=max(left, 0.0) + 1.0)  # an answer at the last moment would come too late


class AnswerOperator(StepOperator):
    """Tells the study what a person said in Airflow: approved or rejected, by whom, and why.

    `said` is what an `AskOperator` returned. Who was first, counts: where the promotion was answered by other means, or
    by an earlier try of this task, that answer stands and is returned.
    """

    step = "answer"
    options = ("run",)
    template_fields = (*StepOperator.template_fields, *options, "said")

    def __init__(self, *, said: Mapping[str, Any] | XComArg, run: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.said = said
        self.run = run

    def _perform(self, study: Study, context: Context, **given: Any) -> dict[str, Any]:  # noqa: ARG002  # as its parent
        from tune_tasks.promotion.approval import answer, approve, promotion_key, reject

        state = study.refresh()
        found = answer(state, promotion_key(state, given["run"]))
        if found is None:
            said: Any = self.said
            agreed = ApprovalOperator.APPROVE in said["chosen_options"]
            by = (said.get("responded_by_user") or {}).get("name") or "a default of Airflow"
            why = (said.get("params_input") or {}).get("why", "").strip() or "answered in Airflow, without a reason"
            found = (approve if agreed else reject)(study, by=by, why=why, run=given["run"])
        return {"study": study.url, **found.model_dump(mode="json", exclude={"type", "key", "time"})}


def approval(
    study: str | Path | Mapping[str, Any] | XComArg,
    *,
    model: XComArg | None = None,
    group_id: str = "approval",
    run: str | None = None,
    ask: Mapping[str, Any] | None = None,
    outlets: Sequence[Asset | AssetAlias] = (),
    **options: Any,
) -> TuneTaskGroup:
    """Has a person agree to the promotion of `study` where its spec says `approval: required`, and carries it out.

    `model` is the `output` of a promotion so far, of `tune_rounds` say; without it, the group begins with one. Only
    where that is pending a person is asked; a rejection leaves the champion, and the run ends well. The `output` of the
    group is the model as it stands then. `ask` goes to the `AskOperator`: `assigned_users`, `notifiers`, `subject`.
    `run` is that of the promotion so far, and `outlets` have an event where the model becomes the champion. Everything
    else goes to each of the operators that open the study.
    """
    given = {"study": study, "run": run, **options}
    group = TuneTaskGroup(group_id=group_id)
    with group:
        if model is None:
            model = PromoteBestOperator(task_id="propose", **given).output
        asked = AskOperator(
            task_id="ask", model=model, run=run, store_conn_id=options.get("store_conn_id"), **(ask or {})
        )
        answered = AnswerOperator(task_id="answer", said=asked.output, **given)
        promotion = PromoteBestOperator(
            task_id="promote_best", outlets=outlets, trigger_rule="none_failed_min_one_success", **given
        )
        chain(asked, answered, promotion)
        chain(model, promotion)  # it ran, so the promotion runs, also where nobody had to be asked
    group.output = promotion.output
    return group
