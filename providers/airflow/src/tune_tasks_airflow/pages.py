"""The pages of studies in Airflow: a task's study, those of a DAG run, and all that a user may know of.

All of it is behind Airflow's login and its permissions, confined to the stores that the configuration lists, escaped,
and only read. Stores are read on a few threads of their own, so that one that does not answer holds up nothing else of
Airflow. This module must not load the engine before a study is looked at, and must not write anything.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from html import escape
from http import HTTPStatus
from typing import Any, NamedTuple

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, get_user, requires_access_dag, requires_access_view
from airflow.configuration import conf
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from tune_tasks_airflow.confined import NOTHING, confined, stores
from tune_tasks_airflow.links import STUDY, study_page

_SECONDS = 20.0
"""That a page may take."""
_REFRESH = "30"
"""Seconds after which a browser asks again for the page of a study that goes on."""
_TASKS, _STUDIES = 1000, 100
"""The newest tasks that are looked at for a list of studies, and the rows of it."""
_HEADERS = {
    "Cache-Control": "no-store",
    # The page is inside Airflow's own: whatever got past the escaping must not run, load or send anything.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'self'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_STYLE = """
:root { color-scheme: light dark; }
body { max-width: 1280px; margin: 0 auto; padding: 24px; font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 12px; font-size: 26px; }
p { overflow-wrap: anywhere; max-width: 860px; }
table { width: 100%; border-collapse: collapse; font-size: 14px; }
th, td { padding: 6px 16px 6px 0; border-bottom: 1px solid #8884; text-align: left; overflow-wrap: anywhere; }
th { opacity: 0.65; font-weight: 600; }
form { display: flex; gap: 8px; margin: 24px 0 8px; }
input { flex: 1; max-width: 640px; }
input, button { padding: 6px 10px; font: inherit; border: 1px solid #8888; border-radius: 6px; }
"""
_FIELD = '<form action="study"><input name="url" required placeholder="URL of a study"><button>Show</button></form>'

_threads = ThreadPoolExecutor(4, thread_name_prefix="tune_tasks")


class Told(NamedTuple):
    """A study that a task told of."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    url: str
    time: datetime


app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(get_user)])


@app.get("/")
async def all_studies(user: GetUserDep) -> HTMLResponse:
    """The newest studies of the DAGs that the user may read, and a field for the URL of any other."""
    found = await run_in_threadpool(_readable, user)
    return _page("Studies", f"{_table(found)}{_FIELD}" if stores() else f"<p>{escape(NOTHING)}</p>{_table(found)}")


@app.get("/study", dependencies=[Depends(requires_access_view(AccessView.PLUGINS))])
async def study_at(url: str) -> HTMLResponse:
    """The study at a URL, which may be of no DAG; for those who may see the pages of plugins."""
    return await _study(url)


@app.get("/dags/{dag_id}/study", dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.XCOM))])
async def study_of(dag_id: str, run_id: str, task_id: str = "", map_index: str = "") -> HTMLResponse:
    """The study of a task, or those of a DAG run. Airflow leaves `{MAP_INDEX}` in the address of an unmapped task."""
    conditions = [XComModel.dag_id == dag_id, XComModel.run_id == run_id]
    if task_id:
        conditions.append(XComModel.task_id == task_id)
    if re.fullmatch("-?[0-9]{1,9}", map_index):
        conditions.append(XComModel.map_index == int(map_index))
    found = await run_in_threadpool(_told, *conditions)
    match found:
        case []:
            raise HTTPException(404, "There is no study here yet. A task of tune_tasks names its own when it begins.")
        case [only]:
            return await _study(only.url)
    return _page("Studies", _table(found, "../../"))


@app.exception_handler(HTTPException)
async def refused(_: Request, error: HTTPException) -> HTMLResponse:
    """What went wrong, as a page for a person."""
    more = " Log in to Airflow, then open this page again." if error.status_code == HTTPStatus.UNAUTHORIZED else ""
    return _page("No study to show", f"<p>{escape(f'{error.detail}')}{more}</p>", error.status_code)


@app.exception_handler(RequestValidationError)
async def incomplete(_: Request, error: RequestValidationError) -> HTMLResponse:
    """The same for an address in which something is missing."""
    names = ", ".join(str(each["loc"][-1]) for each in error.errors())
    return _page("No study to show", f"<p>The address of this page lacks: {escape(names)}</p>", 400)


async def _study(url: str) -> HTMLResponse:
    """The page of a study; one that takes too long is given up, and its thread ends by itself."""
    drawn = asyncio.get_running_loop().run_in_executor(_threads, _drawn, url)
    try:
        return await asyncio.wait_for(drawn, _SECONDS)
    except TimeoutError:
        raise HTTPException(504, f"There was no answer within {_SECONDS:.0f} s. Try again later.") from None


def _drawn(url: str) -> HTMLResponse:
    """The page of a study. Raises `HTTPException` with what there is to say to a person."""
    from tune_tasks import errors
    from tune_tasks.store.places import study_log
    from tune_tasks.views.html import render
    from tune_tasks_airflow.stores import objects

    statuses = {errors.StudyNotFound: 404, errors.Unavailable: 503, errors.ConfigError: 400, errors.TuneError: 500}
    try:
        place = objects(confined(url), conf.get("tune_tasks", "store_conn_id", fallback=None) or None)
        state = study_log(place).load()
    except PermissionError as error:
        raise HTTPException(403, str(error)) from None
    except errors.TuneError as error:
        status = next(code for kind, code in statuses.items() if isinstance(error, kind))
        raise HTTPException(status, str(error)) from None
    return HTMLResponse(render(state), headers=_HEADERS if state.done else {**_HEADERS, "Refresh": _REFRESH})


def _readable(user: Any) -> list[Told]:
    """The studies of the DAGs that a user may read."""
    return _told(XComModel.dag_id.in_(get_auth_manager().get_authorized_dag_ids(user=user, method="GET")))[:_STUDIES]


def _told(*conditions: Any) -> list[Told]:
    """The studies that tasks told of, each once, the newest first."""
    about = (XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.map_index)
    query = select(*about, XComModel.value, XComModel.timestamp).where(XComModel.key == STUDY, *conditions)
    with create_session() as session:
        rows = session.execute(query.order_by(XComModel.timestamp.desc()).limit(_TASKS)).all()
    found: dict[str, Told] = {}
    for dag_id, run_id, task_id, map_index, value, time in rows:
        url = _text(value)
        found.setdefault(url, Told(dag_id, run_id, task_id, map_index, url, time))
    return list(found.values())


def _text(value: Any) -> str:
    """The text in XCom, which is there as JSON or as it is."""
    with suppress(TypeError, ValueError):
        value = json.loads(value)
    return str(value)


def _table(found: Iterable[Told], root: str = "") -> str:
    """The studies in rows, each with a link to its page; `root` leads to the address of all pages."""
    rows = "".join(
        f'<tr><td><a href="{escape(root + study_page(*each[:4]))}">{escape(each.url.rpartition("/")[2])}</a></td>'
        f"<td>{escape(each.url)}</td><td>{escape(each.dag_id)}</td><td>{escape(each.run_id)}</td>"
        f"<td>{each.time:%Y-%m-%d %H:%M}</td></tr>"
        for each in found
    )
    head = "".join(f"<th>{name}</th>" for name in ("study", "URL", "DAG", "run", "last seen (UTC)"))
    return f"<table><tr>{head}</tr>{rows}</table>" if rows else "<p>No task has told of a study yet.</p>"


def _page(title: str, body: str, status: int = 200) -> HTMLResponse:
    """A page with a heading; `body` is HTML."""
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    text = f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{title}</h1>{body}</body></html>\n'
    return HTMLResponse(text, status, headers=_HEADERS)
