"""What came of a study, for the notifiers that there are: Slack, SMTP, or whatever sends a text.

What a message says of a study says the engine. This module must not send anything itself, and a study or a store that
cannot be read must not keep a message from being sent.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.configuration import conf
from airflow.sdk.bases.notifier import BaseNotifier

from tune_tasks_airflow.links import STUDY, study_page
from tune_tasks_airflow.operators import StepOperator
from tune_tasks_airflow.stores import objects

if TYPE_CHECKING:
    from airflow.sdk import Context

Send = BaseNotifier | Callable[["Context"], Any]


class Message(NamedTuple):
    """What templates find as `message`."""

    title: str
    """One line."""
    text: str
    """A few lines: an error, how the study stands, its best trial, the verdict, the model, and links."""
    study: str
    """The study's URL; empty where the task never came to open one."""
    page: str
    """The study's page in Airflow; empty as above."""

    @property
    def html(self) -> str:
        """The text for an e-mail, with everything that users wrote escaped."""
        return f"<pre>{escape(self.text)}</pre>"


class StudyNotifier(BaseNotifier):
    """Has other notifiers tell what came of a task's study, for `on_success_callback` and `on_failure_callback`.

    `send` is a notifier or several, whose templates may name `message.title`, `message.text`, `message.html`,
    `message.study` and `message.page`, or functions that are called with the context. `study` is the URL of a study,
    by default that of the task; a template. `store_conn_id` names the connection that opens its store, by default the
    task's. A task that failed before it had a study is told of too, with its error.
    """

    template_fields = ("study", "store_conn_id")

    def __init__(
        self,
        send: Send | Sequence[Send],
        *,
        study: str | None = None,
        store_conn_id: str | None = None,
        context: Context | None = None,
    ) -> None:
        super().__init__(context=context)
        self.send = send
        self.study = study
        self.store_conn_id = store_conn_id

    def notify(self, context: Context) -> None:
        """Sends by each notifier, also where one before it fails; what failed is raised at the end."""
        told = self._with_message(context)
        failed = [error for each in self._senders() if (error := _failure(each, told)) is not None]
        if failed:
            raise failed[0]

    async def async_notify(self, context: Context) -> None:
        """Does the same in the triggerer, whose loop waits for no store and no channel."""
        told = await asyncio.to_thread(self._with_message, context)
        failed = await asyncio.gather(*(_send(each, told) for each in self._senders()), return_exceptions=True)
        errors = [error for error in failed if error is not None]
        if errors:
            raise errors[0]

    def _senders(self) -> list[Send]:
        """Copies, for a notifier is changed by rendering it, and a task may be told of twice."""
        several = list(self.send) if isinstance(self.send, Sequence) else [self.send]
        return [copy.copy(each) for each in several]

    def _with_message(self, context: Context) -> Context:
        return {**context, "message": self._message(context)}  # type: ignore[typeddict-unknown-key]  # for templates

    def _message(self, context: Context) -> Message:
        found = self._found(context)
        url, title, lines = found or ("", "", [])
        instance, error = context.get("ti"), context.get("exception")
        if error is not None or not title:
            name = f"{instance.dag_id}.{instance.task_id}" if instance is not None else "a task"
            said = [f"error: {error}"] if error is not None else []
            lines = [*said, title, *lines]
            title = f"{name} {'failed' if error is not None else 'has no study'}"
        page = _page(instance) if found and instance is not None else ""
        log = getattr(instance, "log_url", "") if error is not None else ""
        links = {"study": url, "page": page, "log": log}
        lines += [f"{name}: {link}" for name, link in links.items() if link]
        return Message(title, "\n".join(line for line in lines if line), url, page)

    def _found(self, context: Context) -> tuple[str, str, list[str]] | None:
        """The URL of the study, its title and lines: as the task has it, else as its store has it."""
        from tune_tasks.views.summary import summary, title

        task, instance = context.get("task"), context.get("ti")
        handle = getattr(task, "handle", None)
        if self.study is None and handle is not None:
            return handle.url, title(handle.state), [summary(handle.state)]
        url = self.study
        if url is None and isinstance(task, StepOperator) and instance is not None:  # it ran in a process that is gone
            url = instance.xcom_pull(task_ids=instance.task_id, key=STUDY, map_indexes=instance.map_index)
        return _read(str(url), self.store_conn_id or getattr(task, "store_conn_id", None)) if url else None


def _read(url: str, store_conn_id: str | None) -> tuple[str, str, list[str]]:
    """The URL of a study, its title and its lines; or in their place why it cannot be read."""
    from tune_tasks.errors import TuneError
    from tune_tasks.store.log import StudyLog
    from tune_tasks.views.summary import summary, title

    try:
        state = StudyLog(objects(url, store_conn_id)).load()
    except TuneError as error:
        return url, f"{url}: {type(error).__name__}", [str(error)]
    return url, title(state), [summary(state)]


def _page(instance: Any) -> str:
    """The page of a task's study, where a browser finds it."""
    base = conf.get("api", "base_url", fallback="") or "http://localhost:8080"
    page = study_page(instance.dag_id, instance.run_id, instance.task_id, instance.map_index)
    return f"{base.rstrip('/')}/tune/{page}"


def _failure(send: Send, context: Context) -> Exception | None:
    try:
        send(context)
    except Exception as error:  # noqa: BLE001  # of any channel; it is raised after the others
        return error
    return None


async def _send(send: Send, context: Context) -> None:
    if isinstance(send, BaseNotifier) and type(send).async_notify is not BaseNotifier.async_notify:
        send.context = context
        await send
    else:
        await asyncio.to_thread(send, context)
