"""Measures one store in a process of its own, for store.py: opens the study that is there, then commits to it.

python benchmarks/measures.py KIND PLACE TRIALS COMMITS    # prints the figures as JSON
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studies import STEPS, Row, commit, planned, write_ours

from tune_tasks.events import Reports, Started
from tune_tasks.store import Objects, StudyLog, open_objects
from tune_tasks.store.snapshots import FOLDER, HINT
from tune_tasks.study import StudyState

WARM = 20
PAGE = 1000
"""Keys that one request lists, at most, on S3."""


class Counting:
    """The objects of a store; counts the requests that they are asked for, and the bytes of the log."""

    def __init__(self, inner: Objects) -> None:
        self._inner, self._lock = inner, threading.Lock()
        self.url, self.lanes = inner.url, inner.lanes
        self.counts: Counter[str] = Counter()

    def count(self, what: str, times: int = 1) -> None:
        """From several threads."""
        with self._lock:
            self.counts[what] += times

    def create(self, key: str, data: bytes) -> bool:
        """One PUT."""
        self.count("PUT")
        self.count("bytes", len(data))
        return self._inner.create(key, data)

    def replace(self, key: str, data: bytes) -> None:
        """One PUT."""
        self.count("PUT")
        self._inner.replace(key, data)

    def read(self, key: str) -> bytes | None:
        """One GET."""
        self.count("GET")
        return self._inner.read(key)

    def list(self, prefix: str) -> list[str]:
        """One LIST, or more of them where there is more than a page."""
        found = self._inner.list(prefix)
        self.count("LIST", 1 + len(found) // PAGE)
        return found

    def delete(self, key: str) -> None:
        """One DELETE."""
        self.count("DELETE")
        self._inner.delete(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Bare(Counting):
    """Shows no snapshot, so that the whole log is replayed."""

    def read(self, key: str) -> bytes | None:
        """There is no hint."""
        return None if key == HINT else super().read(key)

    def list(self, prefix: str) -> list[str]:
        """There are no snapshots."""
        return [] if prefix == FOLDER else super().list(prefix)


def median_of(times: list[float]) -> float:
    """In seconds."""
    return statistics.median(times)


def memory(which: str) -> float:
    """The memory of this process now (`VmRSS`) or at its highest (`VmHWM`), in MiB."""
    found = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def opened(load: Callable[[], Any], runs: int) -> tuple[Any, dict[str, float]]:
    """Opens a study several times; the memory is that of the first."""
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    before, times, result = memory("VmRSS"), [], None
    for run in range(runs):
        result = None  # what the run before returned is freed outside of the time
        begun = time.perf_counter()
        result = load()
        times.append(time.perf_counter() - begun)
        if run == 0:
            highest = memory("VmHWM") - before
    return result, {"open": median_of(times), "first": times[0], "memory": highest}


def paced(work: Callable[[int], None], times: int, settle: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Commits in a row; what is done beside them counts until it is settled."""
    for number in range(WARM):
        work(number)
    settle()
    took = []
    begun = time.perf_counter()
    for number in range(WARM, WARM + times):
        start = time.perf_counter()
        work(number)
        took.append(time.perf_counter() - start)
    settle()
    seconds = time.perf_counter() - begun
    ordered = sorted(took)
    return {"rate": times / seconds, "p50": median_of(took), "p99": ordered[int(len(ordered) * 0.99)]}


def open_ours(objects: Counting, trials: int, runs: int) -> tuple[StudyLog, StudyState, dict[str, Any]]:
    """Opens the study of a store."""
    objects.read("log/absent")
    log = StudyLog(objects)

    def load() -> StudyState:
        objects.counts.clear()
        return log.load()

    state, figures = opened(load, runs)
    assert len(state.trials) == trials
    assert sum(map(state.curves.length, range(trials))) == trials * STEPS
    return log, state, {**figures, "requests": dict(objects.counts)}


def measure_bare(place: str, trials: int, _: int) -> dict[str, Any]:
    """Opens the study at a place from its log alone."""
    return open_ours(Bare(open_objects(place)), trials, 3)[2]


def measure_ours(place: str, trials: int, commits: int) -> dict[str, Any]:
    """Opens the study at a place, goes on in it, and then in a small one beside it."""
    objects = Counting(open_objects(place))
    log, state, figures = open_ours(objects, trials, 7)
    large = go_on(objects, log, state, commits)
    beside = Counting(open_objects(f"{place}-small"))
    small_log, small = write_ours(beside, [])
    return {**figures, "large": large, "small": go_on(beside, small_log, small, commits)}


def go_on(objects: Counting, log: StudyLog, state: StudyState, commits: int) -> dict[str, Any]:
    """One more trial reports, one report a commit."""
    number, epoch = len(state.trials), state.epoch
    row = Row(number, {"learning_rate": 0.1, "hidden": 16, "activation": "relu"}, [])
    started = Started(trial=number, attempt=1, step=0, worker="worker", time=1.0)
    for role, event in (("step", planned([row], WARM + commits)), ("driver", started)):
        state.apply(event)
        assert log.commit([event], role=role, epoch=epoch if role == "driver" else 0)  # type: ignore[arg-type]

    def work(done: int) -> None:
        about = {"trial": [number], "attempt": [1], "step": [done + 1], "time": [2.0 + done]}
        commit(log, state, "driver", [Reports(**about, metrics={"loss": [1 / (done + 1)]})])

    objects.counts.clear()
    figures = paced(work, commits, log.settle)
    done = WARM + commits
    return {
        **figures,
        "bytes": objects.counts.pop("bytes") / done,
        "requests": {name: value / done for name, value in objects.counts.items()},
    }


def measure_optuna(make: Callable[[], Any], fresh: Callable[[], Any], trials: int, commits: int) -> dict[str, Any]:
    """Opens the study of an Optuna storage; then one more trial in it reports, and one in an empty study."""
    import optuna

    def load() -> tuple[Any, list[Any]]:
        study = optuna.load_study(study_name="study", storage=make())
        return study, study.get_trials(deepcopy=False)

    (study, known), figures = opened(load, 3 if trials <= 1000 else 1)
    assert len(known) == trials
    assert all(len(trial.intermediate_values) == STEPS for trial in known)
    small = optuna.create_study(study_name="study", storage=fresh())
    return {**figures, "large": reporting(study, commits), "small": reporting(small, commits)}


def reporting(study: Any, commits: int) -> dict[str, float]:
    """One trial reports, one report a call."""
    trial = study.ask()
    return paced(lambda done: trial.report(1 / (done + 1), done), commits)


def measure_journal(place: str, trials: int, commits: int) -> dict[str, Any]:
    """Optuna's journal in one file."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    def make(path: str) -> Any:
        return JournalStorage(JournalFileBackend(path))

    small = f"{place}-small"
    figures = measure_optuna(lambda: make(place), lambda: make(small), trials, commits)
    lines = [line for line in Path(small).read_bytes().splitlines() if b'"op_code":7' in line]
    return {**figures, "bytes": sum(map(len, lines)) / len(lines) + 1, "note": "reads one file"}


def measure_sqlite(place: str, trials: int, commits: int) -> dict[str, Any]:
    """Optuna's tables in SQLite, and the statements that it sends."""
    from optuna.storages import RDBStorage
    from sqlalchemy import event

    statements: list[str] = []

    def make(path: str) -> Any:
        storage = RDBStorage(f"sqlite:///{path}")
        event.listen(storage.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
        return storage

    def fresh() -> Any:
        opening.append(len(statements))
        return make(f"{place}-small")

    opening: list[int] = []
    figures = measure_optuna(lambda: make(place), fresh, trials, commits)
    runs = 3 if trials <= 1000 else 1
    return {**figures, "note": f"{opening[0] // runs} statements"}


MEASURES = {"bare": measure_bare, "ours": measure_ours, "journal": measure_journal, "sqlite": measure_sqlite}


def main() -> None:
    """Measures what the command line says."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kind, place, trials, commits = sys.argv[1:]
    print(json.dumps(MEASURES[kind](place, int(trials), int(commits))))


if __name__ == "__main__":
    main()
