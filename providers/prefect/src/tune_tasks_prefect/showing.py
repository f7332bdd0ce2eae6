"""What a person looks at in Prefect while a study runs: its progress, leaderboard, decisions and links, as artifacts.

Each artifact of a study has the same key for ever, and within a flow run it is brought up to date in place, so that
Prefect shows one for each and a history over the runs. What they say, the engine's views say. This module must not hold
up a trial or fail a step where Prefect's server does not answer, and must not make an artifact that grows with trials.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TextIO, cast
from urllib.parse import quote, urlencode, urlsplit

from prefect import get_run_logger

from tune_tasks_prefect import artifacts
from tune_tasks_prefect.artifacts import Shown, masked, not_shown, put, put_or_log, run_id

if TYPE_CHECKING:
    from tune_tasks.studies import Study
    from tune_tasks.study import StudyState
    from tune_tasks.views.rounds import Round

_FIRST, _PAUSE = 1.0, 5.0
"""Seconds before the progress of a launch is shown for the first time, and between two times."""
_ROWS, _ROUNDS, _NAMED = 20, 20, 12
"""As many trials are on the leaderboard, as many rounds in the report, and as many trials in one of their cells."""
_LONGEST = 300
"""Characters of a reason or an error in a table."""
_STEPS = ("evaluate_and_prune", "promote_best")
"""The steps after which there is something new to show; while a launch goes on, `progress` shows it."""

_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#~!&])")

_dashboards: dict[str, str] = {}
"""Where the studies of this process have their Ray jobs, as far as a launch said so."""


@contextmanager
def progress(study: Study, *, dashboard: str | None = None) -> Iterator[Callable[[StudyState], None]]:
    """Shows how a study gets on, for as long as the block lasts; give what it yields to a launch as `on_change`.

    As a progress artifact, at most every five seconds and only where there is something new, and as the lines that the
    command line prints, in the run's log. Calls of what it yields cost nothing that a trial would notice: the server is
    spoken to by another thread. `dashboard` is the address of the Ray cluster where it is not that of the spec.
    Outside a run of Prefect it shows nothing.
    """
    if run_id() is None:
        yield lambda _: None
        return
    from tune_tasks.views.terminal import Progress

    if dashboard is not None:
        _dashboards[study.url] = dashboard
    live, log = _Live(study), cast("TextIO", _Log(get_run_logger()))
    with Progress(log) as lines:

        def on_change(state: StudyState) -> None:
            lines.update(state)
            live.update(state)

        try:
            yield on_change
        finally:
            live.close()


def show_step(step: str, study: Study, result: dict[str, Any]) -> None:  # noqa: ARG001  # the state says it all
    """Brings the leaderboard and the report of a study up to date after a step; call it in the task that ran it.

    It is shown as the study's state has it, of which `result` is a part. Outside a run of Prefect, and after a step
    that changes neither, it does nothing.
    """
    if step not in _STEPS or run_id() is None:
        return
    try:
        links, state = links_of(study), study.state
        over = [_progress(key_of(study, "progress"), state, links)] if state.done else []
        put(_leaderboard(study), _report(study, links, promotion=step == "promote_best"), *over)
    except Exception as error:  # noqa: BLE001  # what is shown is no reason to run a step again
        not_shown(error)


def key_of(study: Study, what: str) -> str:
    """The key of one of a study's artifacts; `what` is progress, leaderboard or report."""
    name = re.sub(r"[^a-z0-9]+", "-", study.spec.name.lower()).strip("-")[:80]
    return f"{name}-{hashlib.sha256(study.url.encode()).hexdigest()[:6]}-{what}"


def links_of(study: Study) -> str:
    """The study, its Ray job and MLflow, as far as there are any, as one line of Markdown without credentials."""
    found = [f"study {code(study.url)}"]
    job, mlflow = _job(study), _mlflow(study)
    if job is not None:
        found.append(f"[Ray job]({job})")
    if mlflow is not None:
        found.append(f"[MLflow]({mlflow})")
    return " · ".join(found)


def plain(text: str) -> str:
    """Text as Markdown shows it as it is, on one line, and without the credentials in a URL."""
    return _MARKUP.sub(r"\\\1", " ".join(masked(text).split()))


def code(text: str) -> str:
    """Text as Markdown shows it in the letters of a program."""
    return f"`{' '.join(masked(text).split()).replace('`', '')}`"


class _Log(io.TextIOBase):
    """A stream that makes each line a line of the run's log."""

    def __init__(self, logger: Any) -> None:
        self._logger, self._left = logger, ""

    def write(self, text: str) -> int:
        """Logs what is complete, and keeps the rest."""
        *lines, self._left = (self._left + text).split("\n")
        for line in filter(str.strip, lines):
            self._logger.info("%s", masked(line))
        return len(text)


class _Live:
    """The progress artifact, while a launch goes on: one call at a time, from a thread that nobody has to wait for."""

    def __init__(self, study: Study) -> None:
        self._study, self._links = study, links_of(study)
        self._due = time.monotonic() + _FIRST
        self._state: StudyState | None = None
        self._job = study.state.job
        self._told: Shown | None = None
        self._thread: threading.Thread | None = None

    def update(self, state: StudyState) -> None:
        """Has a state shown, unless one was a moment ago or is on its way still."""
        self._state = state
        if time.monotonic() >= self._due and not self._busy():
            self._show(state)

    def close(self) -> None:
        """Has the last state shown, and waits for that a few seconds at most."""
        if self._thread is not None:
            self._thread.join(artifacts.PATIENCE)
        if self._state is not None and not self._busy():
            self._show(self._state)
            if self._thread is not None:
                self._thread.join(artifacts.PATIENCE)

    def _busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _show(self, state: StudyState) -> None:
        if state.job != self._job:
            self._job, self._links = state.job, links_of(self._study)
        self._due = time.monotonic() + _PAUSE
        shown = _progress(key_of(self._study, "progress"), state, self._links)
        if shown == self._told:
            return
        self._told = shown
        self._thread = threading.Thread(target=copy_context().run, args=(put_or_log, shown), daemon=True)
        self._thread.start()


def _progress(key: str, state: StudyState, links: str) -> Shown:
    """How much of the budget of trials has begun; a hundred percent only where the study is done."""
    from tune_tasks.views import STATES
    from tune_tasks.views.summary import title

    begun = sum(trial.attempts > 0 for trial in state.trials)
    share = 100.0 * begun / max(state.spec.budget.trials, len(state.trials), 1)
    counts = ", ".join(f"{count} {name}" for name in STATES if (count := state.count(name)))
    lines = [plain(title(state)), plain(counts), links]
    return Shown(key, "progress", 100.0 if state.done else min(round(share, 1), 99.0), "\n\n".join(filter(None, lines)))


def _leaderboard(study: Study) -> Shown:
    from tune_tasks.views import number, parameters
    from tune_tasks.views.summary import title
    from tune_tasks.views.table import leaderboard

    state = study.state
    rows = [
        {
            "rank": number(row.rank),
            "trial": row.trial,
            masked(state.spec.metric): number(row.value),
            "steps": row.steps,
            "state": row.state,
            "why": _short(row.why),
            "parameters": _short(parameters(row.params)),
        }
        for row in leaderboard(state)[:_ROWS]
    ]
    left = len(state.trials) - len(rows)
    more = f", and {left} more trials" if left else ""
    text = f"The {len(rows)} best{more}. {plain(title(state))}"
    return Shown(key_of(study, "leaderboard"), "table", json.dumps(rows), text)


def _report(study: Study, links: str, *, promotion: bool) -> Shown:
    """What a study has come to, what each round decided and why, and with `promotion` how that one stands."""
    from tune_tasks.views.rounds import rounds
    from tune_tasks.views.summary import summary, title

    state = study.state
    facts = [f"- {plain(line)}" for line in summary(state).splitlines()]
    parts = ["\n".join(facts), links, _decisions(rounds(state), state.spec.metric)]
    if promotion:
        parts.append(f"## Promotion\n\n{standings_of(study)}")
    parts.append(f"All of it, drawn: {code(f'tune-tasks report {study.url} --format html > report.html')}")
    return Shown(key_of(study, "report"), "markdown", "\n\n".join(filter(None, parts)), plain(title(state)))


def standings_of(study: Study, run: str | None = None, limit: int = 5) -> str:
    """The leaderboard of a promotion as Markdown: candidates, champion, gates, and how an approval stands."""
    from tune_tasks.promotion.leaderboard import leaderboard
    from tune_tasks.views.promotion import as_markdown

    # The engine has made it safe for the cells of a table; what is left could still be a link, or HTML.
    return re.sub(r"([`*_\[\]<>#~!&])", r"\\\1", masked(as_markdown(leaderboard(study, run=run, limit=limit))))


def _decisions(found: Sequence[Round], metric: str) -> str:
    """A table with a row for each round, the newest first."""
    from tune_tasks.views import STATES, number

    if not found:
        return ""
    heads = ("round", f"best {metric}", "why", "trials", "advance", "pruned", "after its launch")
    lines = [f"| {' | '.join(map(plain, heads))} |", "|---|---:|---|---|---|---|---|"]
    for each in reversed(found[-_ROUNDS:]):
        states = ", ".join(f"{each.states[name]} {name}" for name in STATES if each.states.get(name))
        why = "not decided yet" if each.why is None else each.why
        lists = [_named(trials) for trials in (each.trials, each.advances, each.prunes)]
        cells = (each.batch, number(each.value), _short(why), *lists, states or "-")
        lines.append(f"| {' | '.join(map(plain, cells))} |")
    left = len(found) - _ROUNDS
    more = f"\n\nand {left} earlier rounds" if left > 0 else ""
    return "## What each round decided\n\n" + "\n".join(lines) + more


def _named(trials: Sequence[int]) -> str:
    """How many, and which."""
    names = ", ".join(str(trial) for trial in trials[:_NAMED])
    return f"{len(trials)}: {names}{', ...' if len(trials) > _NAMED else ''}" if trials else "-"


def _short(text: str) -> str:
    """Text on one line, of a length that a table takes."""
    line = " ".join(masked(text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def _job(study: Study) -> str | None:
    """The study's Ray job in the dashboard of its cluster."""
    from tune_tasks.attend import job_name
    from tune_tasks.errors import ConfigError
    from tune_tasks.execution.jobs import Dashboard

    state = study.state
    if state.spec.execution.runner != "job" or not state.job:
        return None
    try:
        address = _dashboards.get(study.url) or Dashboard.of(state.spec.execution.address).address
    except ConfigError:  # the launch says so
        return None
    return f"{_public(address)}/#/jobs/{quote(job_name(state, state.job), safe='')}"


def _mlflow(study: Study) -> str | None:
    """The study's runs in MLflow; None where that is nothing that a browser could open."""
    from tune_tasks.tracking.following import Trackers

    try:
        place = Trackers(study.spec, lambda _: None).places(study.state, study.url).get("mlflow", "")
    except Exception:  # noqa: BLE001  # a tracker may be a plug-in, or not installed here: no reason to fail a task
        return None
    if not place.startswith(("http://", "https://")):
        return None
    return f"{_public(place)}/#/experiments?{urlencode({'experimentSearchFilter': study.spec.name})}"


def _public(address: str) -> str:
    """An address without a user, a password, a query or a fragment."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
