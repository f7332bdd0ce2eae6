"""What a commit and opening a large study cost on local disk, radosgw and PostgreSQL, and in Optuna's storages.

    python benchmarks/store.py            # 10,000 trials with 100 reports each; some minutes, most of them Optuna's
    python benchmarks/store.py --quick    # 1,000 trials, under a minute

A commit is one report of one running trial, one commit after the other by one writer, all of them durable (fsync).
`in a large study` does the same at the end of the study that was opened. Opening means: from nothing but the store to
every trial with its parameters and all of its reports; the median of several times, in a process of its own that has
imported everything and has its connection. Memory is the highest in the first opening, above that. Requests are
counted between the log and the store; for radosgw its own access log is compared. Servers run on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the servers of the tests

from measures import Counting
from studies import STEPS, content, write_journal, write_ours, write_sqlite

from tests.servers import Missing
from tune_tasks.store import StudyLog, open_objects


def shown(counts: dict[str, int], per: float = 1.0) -> str:
    """Requests as text, such as `47 GET, 1 LIST`."""
    kinds = ("GET", "LIST", "PUT", "DELETE", "statements")
    return ", ".join(f"{counts[kind] / per:.4g} {kind}" for kind in kinds if counts.get(kind))


def in_a_process(kind: str, place: str, trials: int, commits: int) -> dict[str, Any]:
    """Measures one line in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("measures.py")), kind, place, str(trials), str(commits)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def copied(source: str, target: str) -> str:
    """Copies every object of a study; segments are bound to their numbers and not to their place."""
    ours, theirs = open_objects(source), open_objects(target)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: theirs.replace(key, ours.read(key) or b""), ours.list("")))
    return target


@contextmanager
def reached(server: Any) -> Iterator[Any]:
    """The environment leads to a server."""
    known = dict(os.environ)
    os.environ.update(server.environment)
    try:
        yield server
    finally:
        os.environ.clear()
        os.environ.update(known)


def agrees(gateway: Any, place: str) -> str:
    """Opens a study and commits to another, and compares the count here with radosgw's own."""
    log = gateway.home / "radosgw.log"
    objects = Counting(open_objects(place))
    objects.read("log/absent")
    settled(log)
    seen = log.stat().st_size
    objects.counts.clear()
    StudyLog(objects).load()
    small = Counting(open_objects(f"{place}-counted"))
    write_ours(small, content(300))
    settled(log)
    with log.open(errors="replace") as file:
        file.seek(seen)
        asked = re.findall(r'"(GET|PUT|DELETE|HEAD|POST) (/\S*) HTTP', file.read())
    theirs = Counter("LIST" if "list-type" in path or "prefix=" in path else method for method, path in asked)
    ours = objects.counts + small.counts
    del ours["bytes"]
    verdict = "the same" if ours == theirs else "NOT THE SAME"
    return f"counted here: {shown(ours)}; by radosgw's access log: {shown(theirs) or dict(theirs)}: {verdict}"


def settled(log: Path) -> None:
    """Waits until a log does not grow any more."""
    size = -1
    while size != log.stat().st_size:
        size = log.stat().st_size
        time.sleep(1.5)


def measure_all(folder: Path, trials: int, commits: int) -> Iterator[tuple[str, Any]]:
    """One line of the table after the other; text where a line cannot be."""
    rows = content(trials)
    local = str(folder / "ours")
    write_ours(open_objects(local), rows)
    yield "local disk", in_a_process("ours", copied(local, str(folder / "local")), trials, commits)
    yield "  without snapshots", in_a_process("bare", local, trials, commits)
    yield "radosgw", on_radosgw(folder, local, trials, commits)
    yield "PostgreSQL", on_postgres(local, trials, commits)
    for name, kind, write in (
        ("Optuna journal file", "journal", write_journal),
        ("Optuna SQLite", "sqlite", write_sqlite),
    ):
        path = folder / kind
        write(path, rows)
        yield name, in_a_process(kind, str(path), trials, commits)


def on_radosgw(folder: Path, local: str, trials: int, commits: int) -> Any:
    """The same study in a bucket."""
    from tests.servers.ceph import radosgw

    (folder / "ceph").mkdir()
    try:
        with radosgw(folder / "ceph") as gateway, reached(gateway):
            place = copied(local, gateway.place())
            figures = in_a_process("ours", place, trials, commits)
            return {**figures, "check": agrees(gateway, place)}
    except Missing as missing:
        return str(missing)


def on_postgres(local: str, trials: int, commits: int) -> Any:
    """The same study in a database, with fsync as it comes."""
    from tests.servers.postgres import serve

    try:
        with serve() as server, reached(server):
            return in_a_process("ours", copied(local, f"{server.url}/study"), trials, commits)
    except Missing as missing:
        return str(missing)


def show(name: str, it: Any) -> None:
    """Prints one line of the table."""
    if isinstance(it, str):
        print(f"{name:20} left out: {it}")
        return
    asked = shown(it["requests"]) if "requests" in it else it["note"]
    print(f"{name:20}{pace(it):68}{it['open']:8.3f}{it['memory']:8.0f}  {asked}", flush=True)


def pace(it: dict[str, Any]) -> str:
    """The columns of the commits."""
    if "small" not in it:
        return ""
    small, large = it["small"], it["large"]
    size = small.get("bytes") or it.get("bytes")
    each = shown(small["requests"], 1 / 64) if "requests" in small else "-"
    rates = f"{small['rate']:9.0f}{large['rate']:9.0f}{1000 * small['p50']:7.1f}{1000 * small['p99']:7.1f}"
    return f"{rates}{f'{size:.0f}' if size else '-':>7}  {each}"


def versions() -> str:
    """What was measured, and on what."""
    packages = " ".join(f"{name} {version(name)}" for name in ("tune-tasks", "s3fs", "psycopg", "optuna"))
    programs = []
    for command in (["radosgw", "--version"], ["psql", "--version"]):
        if shutil.which(command[0]):
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            found = re.search(r"\d+\.\d+(\.\d+)?", said)
            programs.append(f"{command[0]} {found[0] if found else '?'}")
    return f"Python {platform.python_version()}, {packages}, {', '.join(programs)}; {os.cpu_count()} cores"


def fsyncs(folder: Path) -> float:
    """How many times in a second this disk keeps a small new file: what no commit on it can pass."""
    begun = time.perf_counter()
    for number in range(100):
        with (folder / f"fsync{number}").open("wb") as file:
            file.write(b"x" * 300)
            file.flush()
            os.fsync(file.fileno())
    return 100 / (time.perf_counter() - begun)


def load() -> str:
    """What else this machine does."""
    return f"{os.getloadavg()[0]:.1f}"


def main() -> None:
    """Runs the benchmark, or one line of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 trials instead of 10,000, and fewer commits")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--trials", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--commits", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    trials, commits = (1000, 200) if options.quick else (10_000, 1000)
    run(options.trials or trials, options.commits or commits, options.json)


def run(trials: int, commits: int, kept: Path | None) -> None:
    """Measures everything and prints the table."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-store-")))
        print(versions())
        print(f"load {load()} at the start; this disk keeps {fsyncs(folder):.0f} new files in a second\n")
        print(f"{'':20}{'commits in a second':>18}{'ms':>11}{'':13}{'':2}{'':20}  open {trials} x {STEPS}")
        names = (
            f"{'small':>9}{'large':>9}{'p50':>7}{'p99':>7}{'bytes':>7}  {'requests of 64 commits':27}{'s':>8}{'MiB':>8}"
        )
        print(f"{'':20}{names}  requests")
        figures = {}
        for name, line in measure_all(folder, trials, commits):
            show(name, line)
            figures[name] = line
        for name, line in figures.items():
            if "check" in line:
                print(f"\n{name}: {line['check']}")
        print(f"load {load()} at the end")
    if kept:
        kept.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
