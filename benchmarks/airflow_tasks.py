"""What the Airflow provider costs: each task above an empty one, and a hundred launches that wait in the triggerer.

    .venv-airflow/bin/python benchmarks/airflow_tasks.py [--trials 10000]

A task is executed in a process of its own that has imported Airflow: the seconds are those of `execute`, with the
engine's imports among them, beside an empty PythonOperator's in the same run; medians, the orders mixed. The launches
wait in one event loop, each for a study of its own whose job a dashboard calls running.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the dashboard of the tests

from studies import content, write_ours

import tune_tasks as tt
from tune_tasks.events import Launched, Requested
from tune_tasks.store import open_objects
from tune_tasks.studies import append

RUN = "d.r"
TASK = """
import json, sys, time
from types import SimpleNamespace
from airflow.providers.standard.operators.python import PythonOperator
from tune_tasks_airflow.operators import EvaluateAndPruneOperator, PromoteBestOperator, SampleOperator
name, url, batch = sys.argv[1:]
task = {
    "empty": lambda: PythonOperator(task_id="t", python_callable=lambda: None),
    "sample": lambda: SampleOperator(task_id="t", study=url, run="other"),
    "evaluate_and_prune": lambda: EvaluateAndPruneOperator(task_id="t", study=url, batch=batch),
    "promote_best": lambda: PromoteBestOperator(task_id="t", study=url, run="other"),
}[name]()
start = time.perf_counter()
result = task.execute({"run_id": "r", "dag": SimpleNamespace(dag_id="d")})
print(json.dumps([time.perf_counter() - start, len(json.dumps(result))]))
"""


def write(folder: Path, trials: int) -> str:
    """A study of so many trials, with a batch that has run; gives the name of that."""
    write_ours(open_objects(str(folder)), content(trials))
    study = tt.open_study(str(folder))
    batch = tt.sample(study, run=RUN, count=8).id
    over = {"key": f"{batch}/launch", "states": {"pending": 8}, "best": None, "value": None, "reason": "ran"}
    append(study, lambda _: Launched(batch=batch, time=time.time(), **over))
    return batch


def tasks(trials: int, times: int) -> None:
    """Prints what each task takes."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        batch = write(whole, trials)
        found: dict[str, list[tuple[float, int]]] = {}
        for _ in range(times):
            for name in random.sample(["empty", "sample", "evaluate_and_prune", "promote_best"], 4):
                study = shutil.copytree(whole, Path(folder, "study"))
                done = subprocess.run(
                    [sys.executable, "-c", TASK, name, str(study), batch], check=True, capture_output=True, text=True
                )
                found.setdefault(name, []).append(tuple(json.loads(done.stdout.splitlines()[-1])))
                shutil.rmtree(study)
    print(f"a study of {trials} trials: seconds of a task above an empty one, and bytes in XCom")
    empty = statistics.median(seconds for seconds, _ in found["empty"])
    for name in ("sample", "evaluate_and_prune", "promote_best"):
        seconds = statistics.median(seconds for seconds, _ in found[name])
        print(f"  {name:20} {seconds - empty:6.2f} s {found[name][0][1]:6d} bytes")


async def wait_for(places: list[str], address: str, seconds: float) -> float:
    """Lets a launch of each study wait for so long; gives the seconds of processor time that took."""
    from tune_tasks_airflow.triggers import LaunchTrigger

    async def one(url: str) -> None:
        wait = {"url": url, "batch": "main-0000", "by": "me", "job": "job", "position": 3, "losses": 0}
        async for _ in LaunchTrigger(wait=wait, address=address).run():
            raise AssertionError("it should have waited")

    waits = [asyncio.create_task(one(url)) for url in places]
    await asyncio.sleep(15)  # until each has begun
    start = time.process_time()
    await asyncio.sleep(seconds)
    used = time.process_time() - start
    assert not any(wait.done() for wait in waits)
    for wait in waits:
        wait.cancel()
    return used


def launches(many: int, seconds: float) -> None:
    """Prints what so many deferred launches take of a core; the dashboard is a process of its own."""
    program = (
        "import time; from tests.execution.test_jobs import dashboard\n"
        "with dashboard(lambda *_: (200, {'status': 'RUNNING', 'message': ''})) as (address, _):\n"
        "    print(address, flush=True); time.sleep(3600)\n"
    )
    command = [sys.executable, "-c", program]
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder, "0")
        write(first, 100)
        study = tt.open_study(str(first))
        append(study, lambda _: Requested(batch="main-0000", job=1, time=time.time()))
        places = [str(first), *(str(shutil.copytree(first, Path(folder, str(n)))) for n in range(1, many))]
        server: Any = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        try:
            used = asyncio.run(wait_for(places, server.stdout.readline().strip(), seconds))
        finally:
            server.kill()
            server.wait()
    print(f"{many} deferred launches: {used / seconds:.2%} of a core")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--launches", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0, help="for which the launches are watched")
    options = parser.parse_args()
    tasks(options.trials, options.times)
    launches(options.launches, options.seconds)


if __name__ == "__main__":
    main()
