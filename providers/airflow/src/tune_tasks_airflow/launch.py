"""The launch step as an operator: in this process, or as the study's Ray job with the worker's slot free meanwhile.

Like the other operators it must not decide anything about tuning, and loads the engine when a task runs. What it
returns is always read from the study.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf

from tune_tasks_airflow.hooks import dashboard_of
from tune_tasks_airflow.links import RayJobLink, show_job, showing_job
from tune_tasks_airflow.operators import StepOperator
from tune_tasks_airflow.stores import variables
from tune_tasks_airflow.triggers import LaunchTrigger, ended

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from tune_tasks.execution.jobs import Dashboard, Jobs
    from tune_tasks.studies import Study
    from tune_tasks.study import StudyState


class LaunchTrialsOperator(StepOperator):
    """Runs a batch, and shows in the task's log how the study gets on; a retry goes on where the last try ended.

    With `execution: {runner: job}` in the spec the trials run in the study's Ray job, whose id follows from the study:
    a task that is retried or cleared finds it and waits on, and a worker that is killed or preempted costs no trial.
    `ray_conn_id` names a connection of type `ray_jobs` in place of the address in the spec. `address` is that of a
    cluster that an earlier task made; the connection, if there is one, gives token and certificate. `deferrable` leaves
    the wait to the triggerer, which looks every `poll_interval` seconds. `cancel_on_kill` stops the Ray job where a
    person ends the task (marked as failed or successful, not cleared); the study can be gone on with. With `durable`
    off, a try does not wait for the job of an earlier one: it stops that, and the next goes on from the checkpoints.
    """

    step = "launch_trials"
    options = ("batch",)
    template_fields: Sequence[str] = (*StepOperator.template_fields, *options, "ray_conn_id", "address")
    operator_extra_links = (*StepOperator.operator_extra_links, RayJobLink())

    def __init__(
        self,
        *,
        batch: str | Mapping[str, Any] | XComArg,
        ray_conn_id: str | None = None,
        address: str | XComArg | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 5.0,
        cancel_on_kill: bool = True,
        durable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.batch = batch
        self.ray_conn_id = ray_conn_id
        self.address = address
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.cancel_on_kill = cancel_on_kill
        self.durable = durable

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Goes on when the trigger has seen something: the result is there, or the job has to be looked after."""
        return self._run(context, event=event)

    def _perform(
        self, study: Study, context: Context, *, event: dict[str, Any] | None = None, **given: Any
    ) -> dict[str, Any]:
        return self._launch(study, context, given["batch"], event)

    def _launch(self, study: Study, context: Context, batch: str, event: dict[str, Any] | None) -> dict[str, Any]:
        from tune_tasks.steps import perform
        from tune_tasks.views.terminal import Progress

        as_job = study.spec.execution.runner == "job"
        jobs = self._jobs(study) if as_job else None
        if jobs is not None and not self.durable and event is None:
            self._stop(study, jobs)
        if jobs is not None and self.deferrable:
            self._wait(study, context, jobs, batch, event)
        elif self.deferrable:
            runner = study.spec.execution.runner
            self.log.warning("deferrable has no effect with runner: %s, whose trials run in this process", runner)
        try:
            with Progress(sys.stdout) as progress:  # Airflow logs what goes to standard error as errors
                then: Callable[[StudyState], None] = progress.update
                if jobs is not None:
                    then = showing_job(context, self._dashboard(study).address, then)
                return perform("launch_trials", study, batch=batch, jobs=jobs, on_change=then)
        except KeyboardInterrupt:
            if jobs is not None and self.cancel_on_kill and ended(context["ti"]):
                self._stop(study, jobs)
            raise

    def _wait(self, study: Study, context: Context, jobs: Jobs, batch: str, event: dict[str, Any] | None) -> None:
        """Sees that the study's job runs the batch, and defers; returns where the result is there."""
        from tune_tasks.attend import begin
        from tune_tasks.errors import Unavailable
        from tune_tasks.watching import Wait

        if event is not None and event["sign"] == "unavailable":
            raise Unavailable("the store or the cluster has not answered for a while; the trials go on meanwhile")
        if study.state.done and batch not in study.state.batches:
            return
        instance = context["ti"]
        by = f"{instance.dag_id}/{instance.task_id}/{instance.run_id}#{instance.try_number}:{instance.id}"
        wait = begin(study, batch, by=by, jobs=jobs, last=Wait(**event["wait"]) if event else None)
        if wait is not None:
            self.log.info("the Ray job %s runs %s", wait.job, batch)
            show_job(context, self._dashboard(study).address, wait.job)
            trigger = LaunchTrigger(
                wait=wait._asdict(),
                ray_conn_id=self.ray_conn_id,
                store_conn_id=self.store_conn_id,
                address=self._address(study),
                poll_interval=self.poll_interval,
                cancel_on_kill=self.cancel_on_kill,
            )
            self.defer(trigger=trigger, method_name="resume")

    def _jobs(self, study: Study) -> Jobs:
        from tune_tasks.execution.jobs import Jobs

        return Jobs(self._dashboard(study), variables=variables(self.store_conn_id))

    def _dashboard(self, study: Study) -> Dashboard:
        return dashboard_of(self.ray_conn_id, self._address(study))

    def _address(self, study: Study) -> str | None:
        """Of the cluster, where it is not that of the connection."""
        if self.address:
            return str(self.address)
        return None if self.ray_conn_id else study.spec.execution.address

    def _stop(self, study: Study, jobs: Jobs) -> None:
        from tune_tasks.attend import stop

        if stop(study, jobs=jobs):
            self.log.info("stopped the Ray job of %s", study.url)


class TuneOperator(LaunchTrialsOperator):
    """The whole search as one task: samples, launches and evaluates until the study is done; promotes nothing.

    It takes what `LaunchTrialsOperator` takes but a batch. A retry, or a resume after a wait, goes on where the study
    stands. `run` names the pipeline run, by default after the DAG run (`run_name`).
    """

    step = "tune"
    options = ("run",)
    template_fields: Sequence[str] = (*StepOperator.template_fields, *options, "ray_conn_id", "address")

    def __init__(self, *, run: str | None = None, **kwargs: Any) -> None:
        super().__init__(batch="", **kwargs)
        self.run = run

    def _perform(
        self, study: Study, context: Context, *, event: dict[str, Any] | None = None, **given: Any
    ) -> dict[str, Any]:
        from tune_tasks.steps import perform

        while True:
            batch = perform("sample", study, run=given["run"])["batch"]
            self._launch(study, context, batch, event)
            verdict = perform("evaluate_and_prune", study, batch=batch)
            if verdict["done"]:
                return verdict
            event = None
