"""What becomes of a flow run's Ray jobs when the run ends before they do: the hooks of every flow that launches.

Cancelled by a person, the run's jobs are stopped, and the studies can be gone on with. Crashed or failed, they go on:
the run comes back, or the jobs end with their batch. Where the process of the flow is dead, its runner calls the hooks;
where that is dead too, `stop_cancelled` does what they would have done. This module must not take a runner that is shut
down, as a preempted one is, for a person who cancels.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger
from prefect.states import Cancelled

from tune_tasks_prefect.asking import impatient
from tune_tasks_prefect.automations import SHUT_DOWN, TAG, comes_back
from tune_tasks_prefect.notes import Note, notes_of, opened_job, written


def stop_jobs(flow: Any, flow_run: FlowRun, state: State) -> None:
    """Stops the Ray jobs of a run that a person cancelled: `@flow(on_cancellation=[stop_jobs])`.

    The runner calls it also when it is shut down, with a state that nobody asked for: then the jobs go on.
    """
    log = flow_run_logger(flow_run, flow)
    run = _newest(flow_run, log)
    if not _is_cancelled(run):
        log.warning("Nobody cancelled this run: its runner was shut down (%s)", state.message)
        _tell(run, log)
        return
    stop_all(run, log)


def tell_jobs(flow: Any, flow_run: FlowRun, state: State) -> None:
    """Says where the Ray jobs of a run are that crashed or failed: `@flow(on_crashed=[tell_jobs])`.

    They go on, because the run comes back. Where it has crashed so often that it is not run again, they are stopped.
    """
    log = flow_run_logger(flow_run, flow)
    run = _newest(flow_run, log)
    if state.is_crashed() and TAG in run.tags and not comes_back(run.run_count, run.tags):
        log.warning("This run has crashed %d times, and is not run again", run.run_count)
        stop_all(run, log)
    else:
        _tell(run, log)


def stop_cancelled(id: UUID) -> bool:  # noqa: A002  # Prefect's word
    """Stops the Ray jobs of a flow run that was cancelled, and ends the run; false where nobody cancelled it.

    For a run whose process and runner are both dead, and for one that was waiting to be run again: no hook is called
    for those. Called again, or after the hooks, it changes nothing.
    """
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(id)
    if not _is_cancelled(run):
        return False
    end(run)
    return True


def end(run: FlowRun) -> None:
    """Stops the jobs of a flow run that was cancelled, and says that it is, in place of its runner."""
    log = flow_run_logger(run)
    newest = _newest(run, log)
    stop_all(newest, log)
    if newest.state is None or not newest.state.is_cancelled():
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Cancelled(message="Nobody else was left to end it."), force=True)


def stop_all(run: FlowRun, log: Any) -> None:
    """Asks the jobs of a flow run to stop; what cannot be done is told, with the command that does it by hand."""
    for note in _notes(run, log):
        try:
            with opened_job(note) as (study, jobs):
                from tune_tasks.attend import job_name, stop

                job = job_name(study.state, study.state.job)
                said = "is asked to stop" if stop(study, jobs=jobs) else "does not run any more"
                log.info("The Ray job %s %s; to go on with %s, run this flow again", job, said, note.study)
        except Exception as error:  # noqa: BLE001  # the other jobs are to be stopped all the same
            log.error("The Ray job of %s cannot be stopped: %s; try: tune-tasks stop %s", note.study, error, note.study)  # noqa: TRY400


def _is_cancelled(run: FlowRun) -> bool:
    """Whether a person has cancelled a run, as the server has it."""
    state = run.state
    return state is not None and (state.is_cancelling() or (state.is_cancelled() and state.message != SHUT_DOWN))


def _tell(run: FlowRun, log: Any) -> None:
    for note in written(run):
        log.warning(
            "The Ray job of %s goes on, and the next run of this flow finds it; to end it: tune-tasks stop %s",
            note.study,
            note.study,
        )


def _notes(run: FlowRun, log: Any) -> list[Note]:
    try:
        return notes_of(run)
    except Exception as error:  # noqa: BLE001  # a hook that fails says less
        log.warning("Which Ray jobs this run has launched cannot be told: %s", error)
        return []


def _newest(run: FlowRun, log: Any) -> FlowRun:
    """The run as the server has it, with labels that the process of the flow wrote."""
    try:
        with impatient() as client:
            return client.read_flow_run(run.id)
    except Exception as error:  # noqa: BLE001  # as above
        log.warning("Prefect's server does not answer: %s", error)
        return run
