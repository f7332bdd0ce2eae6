"""How long it takes to open a study of 1,000 and of 10,000 trials with 100 reports each, and how much is read for it.

    python benchmarks/open_study.py            # a few minutes, most of them Optuna's
    python benchmarks/open_study.py --quick    # 1,000 trials only

Our log is written by our own commits, 500 reports each, with a snapshot whenever one is due. Optuna's journal and
SQLite get the same trials with the same parameters, reports and values in bulk, in the form in which Optuna itself
writes them, since a million single calls would take hours. Opening means: from nothing but the files to every trial
with its parameters and all of its reports. Each line is the best of several runs in this one process, on files that the
system has in memory; Optuna's large studies are opened once.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tune_tasks.events import Assignment, Created, Ended, Event, Opened, Planned, Proposal, Reports, Started
from tune_tasks.spec import StudySpec
from tune_tasks.store import StudyLog
from tune_tasks.store.local import LocalObjects
from tune_tasks.store.retry import Retrying
from tune_tasks.store.snapshots import FOLDER, HINT
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


@dataclass
class Line:
    """One line of the table."""

    what: str
    trials: int
    seconds: float
    reads: str
    size: float


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


class Counting(LocalObjects):
    """Counts what is asked of the disk; `bare` hides the snapshots, so that the whole log is replayed."""

    def __init__(self, root: Path, *, bare: bool = False) -> None:
        super().__init__(root)
        self.bare, self.reads, self.lists = bare, 0, 0

    def read(self, key: str) -> bytes | None:
        """Reads an object and counts it."""
        self.reads += 1
        return None if self.bare and key == HINT else super().read(key)

    def list(self, prefix: str) -> list[str]:
        """Lists a folder and counts it."""
        self.lists += 1
        return [] if self.bare and prefix == FOLDER else super().list(prefix)


def write_ours(folder: Path, rows: list[Row]) -> None:
    """Writes the study as its steps and its driver would."""
    log, state = StudyLog(Retrying(LocalObjects(folder), 60.0)), StudyState()
    spec = StudySpec(name="study", objective="objective:train", metric="loss", mode="min", space=SPACE)
    first = Created(study="0" * 32, spec=spec.record(), folder=None, time=0.0)
    assert log.create(first)
    state.apply(first)
    for role, events in _commits(rows):
        for event in events:
            state.apply(event)
        assert log.commit(events, role=role, epoch=int(role == "driver"))
        if log.snapshot_due:
            log.snapshot(state)


def _commits(rows: list[Row]) -> Iterator[tuple[Any, list[Event]]]:
    yield "driver", [Opened(epoch=1, owner="benchmark", time=0.0)]
    for start in range(0, len(rows), PLANNED):
        yield "step", [_planned(rows[start : start + PLANNED])]
        for group in range(start, start + PLANNED, AT_ONCE):
            yield "driver", _group(rows[group : group + AT_ONCE])


def _planned(rows: list[Row]) -> Event:
    batch = f"batch-{rows[0].number:06d}"
    return Planned(
        key=f"{batch}/sample",
        run="main",
        round=rows[0].number // PLANNED,
        batch=batch,
        proposals=tuple(Proposal(number=row.number, params=row.params, reason="drawn at random") for row in rows),
        assignments=tuple(Assignment(trial=row.number, budget=STEPS, last=True, reason="new") for row in rows),
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


def open_ours(folder: Path, rows: list[Row], what: str, *, bare: bool) -> Line:
    """Opens our log."""
    counting = Counting(folder, bare=bare)
    log = StudyLog(Retrying(counting, 60.0))

    def load() -> StudyState:
        counting.reads = counting.lists = 0
        return log.load()

    seconds, state = best_of(3 if bare else 7, load)
    assert [trial.value for trial in state.trials] == [min(row.losses) for row in rows]
    assert sum(map(state.curves.length, range(len(rows)))) == len(rows) * STEPS
    used = [path for path in folder.rglob("*") if path.is_file() and not (bare and path.parent.name == "snap")]
    reads = f"{counting.reads} files, {counting.lists} listing{'s' * (counting.lists != 1)}"
    return Line(what, len(rows), seconds, reads, size_of(used))


def _distributions() -> dict[str, Any]:
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
    for name, distribution in _distributions().items():
        internal = distribution.to_internal_repr(row.params[name])
        shape = distribution_to_json(distribution)
        yield 5, {**trial, "param_name": name, "param_value_internal": internal, "distribution": shape}
    for step, loss in enumerate(row.losses, 1):
        yield 7, {**trial, "step": step, "intermediate_value": loss}
    yield 6, {**trial, "state": 1, "values": [min(row.losses)], "datetime_complete": at}


def open_journal(path: Path, rows: list[Row], runs: int) -> Line:
    """Opens Optuna's journal."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    seconds, trials = best_of(runs, lambda: _trials(JournalStorage(JournalFileBackend(str(path)))))
    check_optuna(trials, rows)
    with path.open("rb") as file:
        lines = sum(1 for _ in file)
    return Line("Optuna journal", len(rows), seconds, f"1 file, {lines} lines", size_of([path]))


def write_sqlite(path: Path, rows: list[Row]) -> None:
    """Fills the tables that Optuna makes."""
    import optuna
    from optuna.distributions import distribution_to_json

    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    optuna.create_study(storage=storage, study_name="study", direction="minimize")
    storage.engine.dispose()
    shapes = {name: (it, distribution_to_json(it)) for name, it in _distributions().items()}
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


def open_sqlite(path: Path, rows: list[Row], runs: int) -> Line:
    """Opens Optuna's SQLite storage, counting the statements."""
    from optuna.storages import RDBStorage
    from sqlalchemy import event

    statements: list[str] = []

    def load() -> list[Any]:
        statements.clear()
        storage = RDBStorage(f"sqlite:///{path}")
        event.listen(storage.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
        try:
            return _trials(storage)
        finally:
            storage.engine.dispose()

    seconds, trials = best_of(runs, load)
    check_optuna(trials, rows)
    return Line("Optuna SQLite", len(rows), seconds, f"1 file, {len(statements)} statements", size_of([path]))


def _trials(storage: Any) -> list[Any]:
    import optuna

    return optuna.load_study(study_name="study", storage=storage).get_trials(deepcopy=False)


def check_optuna(trials: list[Any], rows: list[Row]) -> None:
    """The other side must have read the same."""
    assert [trial.value for trial in trials] == [min(row.losses) for row in rows]
    assert trials[-1].params.keys() == rows[-1].params.keys()
    assert all(len(trial.intermediate_values) == STEPS for trial in trials)


def best_of(runs: int, work: Callable[[], Any]) -> tuple[float, Any]:
    """The shortest time of several runs in seconds, and what the last one returned."""
    times = []
    result = None
    for _ in range(runs):
        result = None  # what the run before returned is freed outside of the time
        begun = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - begun)
    return min(times), result


def size_of(paths: list[Path]) -> float:
    """Megabytes."""
    return sum(path.stat().st_size for path in paths) / 1e6


def measure(folder: Path, trials: int) -> list[Line]:
    """Builds and opens one size."""
    rows, few = content(trials), 3 if trials <= 1000 else 1
    print(f"writing and opening {trials} trials with {STEPS} reports each ...", flush=True)
    write_ours(folder / "ours", rows)
    lines = [
        open_ours(folder / "ours", rows, "tune_tasks", bare=False),
        open_ours(folder / "ours", rows, "tune_tasks, without its snapshots", bare=True),
    ]
    write_journal(folder / "journal.log", rows)
    lines.append(open_journal(folder / "journal.log", rows, few))
    write_sqlite(folder / "study.db", rows)
    lines.append(open_sqlite(folder / "study.db", rows, few))
    return lines


def show(lines: list[Line]) -> None:
    """Prints the table; the ratio is to our own line above."""
    print(f"\n{'':34} {'trials':>6} {'open':>10} {'ratio':>7} {'on disk':>9}  reads")
    for line in lines:
        ours = next(each for each in lines if each.trials == line.trials)
        shown = f"{line.seconds * 1000:,.0f} ms"
        ratio = f"{line.seconds / ours.seconds:,.0f}x"
        print(f"{line.what:34} {line.trials:6} {shown:>10} {ratio:>7} {line.size:6,.1f} MB  {line.reads}")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 trials only")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lines: list[Line] = []
    for trials in (1000,) if options.quick else (1000, 10_000):
        folder = Path(tempfile.mkdtemp(prefix="open-study-"))
        try:
            lines += measure(folder, trials)
        finally:
            shutil.rmtree(folder)
    show(lines)
    if options.json:
        options.json.write_text(json.dumps([vars(line) for line in lines], indent=2))


if __name__ == "__main__":
    main()
