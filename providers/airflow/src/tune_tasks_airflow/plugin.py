"""The pages of studies as a part of Airflow's UI: where they are shown, and the application that serves them.

Every process of Airflow imports this, workers too. It must not load a web framework or the engine: the application is
made when the first page is asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin

Message = MutableMapping[str, Any]


class Pages:
    """The application of `pages`, which is loaded by its first request."""

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Serves one request."""
        from tune_tasks_airflow.pages import app

        await app(scope, receive, send)


class TunePlugin(AirflowPlugin):
    """Adds a tab to each task and DAG run that shows its study, and a list of all studies to the menu."""

    name = "tune_tasks"
    fastapi_apps = [{"name": "tune_tasks", "app": Pages(), "url_prefix": "/tune"}]  # noqa: RUF012  # as Airflow has it
    external_views = [  # noqa: RUF012  # as Airflow has it
        {
            "name": "Study",
            "href": "tune/dags/{DAG_ID}/study?run_id={RUN_ID}&task_id={TASK_ID}&map_index={MAP_INDEX}",
            "destination": "task_instance",
            "url_route": "tune-study",
        },
        {
            "name": "Studies",
            "href": "tune/dags/{DAG_ID}/study?run_id={RUN_ID}",
            "destination": "dag_run",
            "url_route": "tune-run",
        },
        {"name": "Studies", "href": "tune/", "destination": "nav", "category": "browse", "url_route": "tune-studies"},
    ]
