"""The launch step of a flow: in this process, or as the study's Ray job, within a limit of GPUs.

A process that is killed or preempted leaves the Ray job alone, and the next one attaches to it. This module must not
decide anything about tuning, and must not end a job but for a person who cancelled the flow run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from tune_tasks_prefect.aio import heed
from tune_tasks_prefect.limits import Slots, gpus
from tune_tasks_prefect.lookout import Cancelled, Lookout, look_at_run, was_cancelled
from tune_tasks_prefect.notes import Note, write_note
from tune_tasks_prefect.signals import interrupting

if TYPE_CHECKING:
    from tune_tasks.execution.jobs import Dashboard
    from tune_tasks.studies import Study
    from tune_tasks.study import StudyState


def launch(
    study: Study, batch: str, *, store: str | None = None, cluster: str | None = None, limit: str | None = None
) -> dict[str, Any]:
    """Runs a batch to its end and gives the step's result; a step that has one already waits for nothing.

    `store` and `cluster` name blocks. With `limit` as many slots of that global concurrency limit are held meanwhile as
    the trials use GPUs at once. A flow run that was cancelled, or that another process executes by now, ends without
    a word about its state: raises `Abort` for that, and else what the step raises.
    """
    from tune_tasks.errors import Fenced
    from tune_tasks.steps import perform
    from tune_tasks_prefect.showing import progress

    if f"{batch}/launch" in study.state.steps:
        return perform("launch_trials", study, batch=batch)
    job = Note(study.url, store, cluster) if study.spec.execution.runner == "job" else None
    dashboard = _dashboard(study, cluster) if job else None
    try:
        _begin(study, job)
        address = dashboard.address if dashboard else None
        with interrupting(), _held(limit, study) as look, progress(study, dashboard=address) as show:

            def on_change(state: StudyState) -> None:
                look()
                show(state)

            jobs = _jobs(dashboard, store) if dashboard else None
            return perform("launch_trials", study, batch=batch, jobs=jobs, on_change=on_change)
    except Fenced:
        look_at_run()  # by the process that took this flow run over?
        raise
    except Cancelled:
        _end(_flow_run())
        raise


def _begin(study: Study, job: Note | None) -> None:
    """Sees that the flow run is wanted, and notes its job for the hooks, before there is one."""
    look_at_run()
    run = _flow_run()
    if run is not None and run.run_count > 1 and was_cancelled(run.id):
        raise Cancelled(f"the flow run {run.id} was cancelled before its process died")
    if run is not None and job is not None:
        write_note(run.id, study, job)


@contextmanager
def _held(limit: str | None, study: Study) -> Iterator[Callable[[], None]]:
    """Holds the slots of a limit, and looks out for what ends the launch; gives what raises that."""
    slots = None if limit is None else Slots(limit, gpus(study.spec), get_run_logger())
    with ExitStack() as stack:
        lookout = stack.enter_context(Lookout(look_at_run, *([slots.renew] if slots else [])))

        def look() -> None:
            heed()
            lookout()

        if slots is not None:
            stack.callback(slots.release)
            slots.acquire(look)
        yield look


def _dashboard(study: Study, cluster: str | None) -> Dashboard:
    """Of the cluster that a block names, else of the one in the spec."""
    from tune_tasks_prefect.blocks import dashboard_of

    return dashboard_of(cluster, None if cluster else study.spec.execution.address)


def _jobs(dashboard: Dashboard, store: str | None) -> Any:
    from tune_tasks.execution.jobs import Jobs
    from tune_tasks_prefect.blocks import variables

    return Jobs(dashboard, variables=variables(store))


def _end(run: FlowRun | None) -> None:
    """Does what no runner is left to do: stops the jobs of a run that was cancelled, and says that it is."""
    from tune_tasks_prefect.hooks import end

    if run is not None:
        try:
            end(run)
        except Exception as error:  # noqa: BLE001  # what ends the launch is raised all the same
            get_run_logger().warning("That this run is cancelled cannot be told: %s", error)


def _flow_run() -> FlowRun | None:
    context = FlowRunContext.get()
    return context.flow_run if context is not None else None
