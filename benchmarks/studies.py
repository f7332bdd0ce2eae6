"""One content for every store that is compared, trials with the same parameters, reports and values; and who writes it.

Our log is written by our own commits, 500 reports each, with a snapshot whenever one is due. Optuna's journal and
SQLite get theirs in bulk, in the form in which Optuna itself writes it, since a million single calls take hours.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tune_tasks.events import Assignment, Created, Ended, Event, Opened, Planned, Proposal, Reports, Started
from tune_tasks.spec import StudySpec
from tune_tasks.store import Objects, StudyLog
from tune_tasks.study import StudyState

STEPS = 100
AT_ONCE = 5
PLANNED = 100
CHOICES = ("relu", "tanh")
SPACE = {
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "hidden": {"type": "int", "low": 16, "high": 256, "log": True},
    "activation": {"type": "categorical", "choices": list(CHOICES)},
}


class Row(NamedTuple):
    """One trial of the content that all of them get."""

    number: int
    params: dict[str, Any]
    losses: list[float]


def content(trials: int) -> list[Row]:
    """The trials, the same for everyone."""
    draw = random.Random(0)
    return [
        Row(
            number,
            {
                "learning_rate": 10 ** draw.uniform(-5, -1),
                "hidden": draw.randint(16, 256),
                "activation": draw.choice(CHOICES),
            },
            [draw.random() + 1 / step for step in range(1, STEPS + 1)],
        )
        for number in range(trials)
    ]


def write_ours(objects: Objects, rows: list[Row]) -> tuple[StudyLog, StudyState]:
    """Writes the study as its steps and its driver would."""
    log, state = StudyLog(objects), StudyState()
    spec = StudySpec(name="study", objective="objective:train", metric="loss", mode="min", space=SPACE)
    first = Created(study="0" * 32, spec=spec.record(), folder=None, time=0.0)
    assert log.create(first)
    state.apply(first)
    commit(log, state, "driver", [Opened(epoch=1, owner="benchmark", time=0.0)])
    for role, events in _commits(rows):
        commit(log, state, role, events)
    log.settle()
    return log, state


def commit(log: StudyLog, state: StudyState, role: Any, events: list[Event]) -> None:
    """One commit, and what a driver does after it."""
    for event in events:
        state.apply(event)
    assert log.commit(events, role=role, epoch=int(role == "driver"))
    if log.snapshot_due:
        log.snapshot(state)


def _commits(rows: list[Row]) -> Iterator[tuple[Any, list[Event]]]:
    for start in range(0, len(rows), PLANNED):
        yield "step", [planned(rows[start : start + PLANNED])]
        for group in range(start, start + PLANNED, AT_ONCE):
            yield "driver", _group(rows[group : group + AT_ONCE])


def planned(rows: list[Row], budget: int = STEPS) -> Event:
    """The plan of these trials in one batch."""
    batch = f"batch-{rows[0].number:06d}"
    return Planned(
        key=f"{batch}/sample",
        run="main",
        round=rows[0].number // PLANNED,
        batch=batch,
        proposals=tuple(Proposal(number=row.number, params=row.params, reason="drawn at random") for row in rows),
        assignments=tuple(Assignment(trial=row.number, budget=budget, last=True, reason="new") for row in rows),
        exhausted=False,
        time=float(rows[0].number),
    )


def _group(rows: list[Row]) -> list[Event]:
    """The attempts of a few trials side by side: their reports alternate, as those of several workers do."""
    numbers, now = [row.number for row in rows], float(rows[0].number)
    reports = Reports(
        trial=numbers * STEPS,
        attempt=[1] * len(numbers) * STEPS,
        step=[step for step in range(1, STEPS + 1) for _ in numbers],
        time=[now + index / 1000 for index in range(len(numbers) * STEPS)],
        metrics={"loss": [row.losses[step] for step in range(STEPS) for row in rows]},
    )
    started = [Started(trial=number, attempt=1, step=0, worker="worker", time=now) for number in numbers]
    return [*started, reports, *(Ended(trial=number, attempt=1, outcome="reached", time=now) for number in numbers)]


def distributions() -> dict[str, Any]:
    """The space in Optuna's words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    return {
        "learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
        "hidden": IntDistribution(16, 256, log=True),
        "activation": CategoricalDistribution(CHOICES),
    }


def write_journal(path: Path, rows: list[Row]) -> None:
    """Appends to Optuna's journal what its own calls would append, one operation a line."""
    from optuna.storages.journal import JournalFileBackend

    backend = JournalFileBackend(str(path))
    begin = {"study_name": "study", "directions": [1]}
    backend.append_logs([{"op_code": 0, "worker_id": "writer", **begin}])
    for start in range(0, len(rows), PLANNED):
        operations = [line for row in rows[start : start + PLANNED] for line in _operations(row)]
        backend.append_logs([{"op_code": code, "worker_id": "writer", **fields} for code, fields in operations])


def _operations(row: Row) -> Iterator[tuple[int, dict[str, Any]]]:
    from optuna.distributions import distribution_to_json

    at = "2026-01-01T00:00:00.000000+00:00"
    trial = {"trial_id": row.number}
    yield 4, {"study_id": 0, "datetime_start": at}
    for name, distribution in distributions().items():
        internal = distribution.to_internal_repr(row.params[name])
        shape = distribution_to_json(distribution)
        yield 5, {**trial, "param_name": name, "param_value_internal": internal, "distribution": shape}
    for step, loss in enumerate(row.losses, 1):
        yield 7, {**trial, "step": step, "intermediate_value": loss}
    yield 6, {**trial, "state": 1, "values": [min(row.losses)], "datetime_complete": at}


def write_sqlite(path: Path, rows: list[Row]) -> None:
    """Fills the tables that Optuna makes."""
    import optuna
    from optuna.distributions import distribution_to_json

    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    optuna.create_study(storage=storage, study_name="study", direction="minimize")
    storage.engine.dispose()
    shapes = {name: (it, distribution_to_json(it)) for name, it in distributions().items()}
    at = "2026-01-01 00:00:00.000000"
    with sqlite3.connect(path) as tables:
        tables.executemany(
            "insert into trials (trial_id, number, study_id, state, datetime_start, datetime_complete)"
            " values (?, ?, 1, 'COMPLETE', ?, ?)",
            ((row.number + 1, row.number, at, at) for row in rows),
        )
        tables.executemany(
            "insert into trial_params (trial_id, param_name, param_value, distribution_json) values (?, ?, ?, ?)",
            (
                (row.number + 1, name, it.to_internal_repr(row.params[name]), shape)
                for row in rows
                for name, (it, shape) in shapes.items()
            ),
        )
        tables.executemany(
            "insert into trial_values (trial_id, objective, value, value_type) values (?, 0, ?, 'FINITE')",
            ((row.number + 1, min(row.losses)) for row in rows),
        )
        tables.executemany(
            "insert into trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)"
            " values (?, ?, ?, 'FINITE')",
            ((row.number + 1, step, loss) for row in rows for step, loss in enumerate(row.losses, 1)),
        )
    tables.close()
