"""The wait for a launch step, in Airflow's triggerer: hundreds of them share one process.

What the step gave is in the study; the event only wakes the task up. This module must not stop a job that anyone else
waits for, or that no person has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async  # back to the loop, over which Airflow is asked

if TYPE_CHECKING:
    from tune_tasks.watching import Watch

_ENDED = frozenset({"failed", "success", "skipped", "upstream_failed", "removed"})
"""The states into which a person puts a task that is not to go on."""
_LINES = 10
"""Of the log that are shown at a time."""


class LaunchTrigger(BaseTrigger):
    """Waits until a launch step is over, or its Ray job is gone; that, and no result, is its event.

    `wait` is the engine's `Wait` as a mapping. A store or a cluster that does not answer for `patience` seconds ends
    the wait too: the task's retries are for that.
    """

    def __init__(
        self,
        *,
        wait: dict[str, Any],
        ray_conn_id: str | None = None,
        store_conn_id: str | None = None,
        address: str | None = None,
        poll_interval: float = 5.0,
        patience: float = 600.0,
        cancel_on_kill: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.wait = wait
        self.ray_conn_id = ray_conn_id
        self.store_conn_id = store_conn_id
        self.address = address
        self.poll_interval = poll_interval
        self.patience = patience
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments, as the database keeps them."""
        names = ("wait", "ray_conn_id", "store_conn_id", "address", "poll_interval", "patience", "cancel_on_kill")
        return f"{type(self).__module__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Looks every `poll_interval` seconds, half as often while nothing is new, on a thread, and logs what is."""
        from tune_tasks.errors import Unavailable

        watch = await sync_to_async(self._watch)()
        loop = asyncio.get_running_loop()
        answered = loop.time()
        while True:
            try:
                sign: str | None = await asyncio.to_thread(watch.look)
                answered = loop.time()
            except Unavailable as error:
                self.log.warning("%s", error)
                sign = "unavailable" if loop.time() - answered > self.patience else None
            self._tell(watch)
            if sign is not None:
                yield TriggerEvent({"sign": sign, "wait": self.wait})  # type: ignore[no-untyped-call]  # as above
                return
            await asyncio.sleep(self.poll_interval if watch.news else 2 * self.poll_interval)

    async def on_kill(self) -> None:
        """Stops the Ray job where a person has ended the task.

        Airflow calls this also for a task that is cleared, whose next try takes the job over, and for one that another
        triggerer has taken over: neither is to be stopped.
        """
        if self.cancel_on_kill and await sync_to_async(ended)(self.task_instance):
            watch = await sync_to_async(self._watch)()
            stopped = await asyncio.to_thread(watch.stop)
            told = "stopped" if stopped else "left alone: it is over, or someone else waits for it"
            self.log.info("the Ray job %s is %s", self.wait["job"], told)

    def _watch(self) -> Watch:
        from tune_tasks.execution.jobs import Jobs
        from tune_tasks.watching import Wait, Watch
        from tune_tasks_airflow.hooks import dashboard_of
        from tune_tasks_airflow.stores import objects

        jobs = Jobs(dashboard_of(self.ray_conn_id, self.address))
        return Watch(Wait(**self.wait), jobs, objects=objects(self.wait["url"], self.store_conn_id))

    def _tell(self, watch: Watch) -> None:
        """Shows in the task's log what happened since the last look."""
        from tune_tasks.operate.words import words

        lines = [words(event) for event in watch.news if event.type not in {"reports", "checkpointed", "discarded"}]
        for line in lines[:_LINES]:
            self.log.info("%s", line)
        if len(lines) > _LINES:
            self.log.info("... and %d events more", len(lines) - _LINES)


def ended(instance: Any) -> bool:
    """Whether a task was put into a final state from outside, by its own record in Airflow's database."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    index = getattr(instance, "map_index", -1)
    states = RuntimeTaskInstance.get_task_states(
        dag_id=instance.dag_id, task_ids=[instance.task_id], run_ids=[instance.run_id], map_index=index
    )
    return any(state in _ENDED for state in states.get(instance.run_id, {}).values())
