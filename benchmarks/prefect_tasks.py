"""What the Prefect provider costs: each step above an empty task, what is kept of it, and calls of Prefect's API.

    python benchmarks/prefect_tasks.py [--times 5] [--trials 10000] [--seconds 30]

Each flow runs in a process of its own against one real server on SQLite. Seconds of a step are those from its call to
its result, with the engine's imports among them, beside those of an empty task in the same place of a flow of four;
medians, the orders mixed. Trials run in the flow's process, and the model goes to the store alone (`registry: none`).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the server of the tests

from airflow_tasks import write

from tests.prefect_server import PrefectServer, serve

ROOT = Path(__file__).parents[1]
STEPS = ("sample", "launch_trials", "evaluate_and_prune", "promote_best")
SPEC = {
    "name": "steps",
    "objective": "epochs:nap",
    "metric": "loss",
    "mode": "min",
    "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
    "sampler": "random",
    "budget": {"trials": 4, "concurrency": 1},
    "execution": {"runner": "inline"},
    "promotion": {"registry": "none"},
}
FLOWS = """
import json, sys, time
import httpx
from prefect import flow, task
import tune_tasks_prefect as provider

calls = 0
for client in (httpx.Client, httpx.AsyncClient):
    def counted(self, *args, send=client.send, **kwargs):
        global calls
        calls += 1
        return send(self, *args, **kwargs)
    client.send = counted

def timed(function, *args):
    begun = time.perf_counter()
    result = function(*args)
    spans.append(time.perf_counter() - begun)
    sizes.append(len(json.dumps(result)))
    return result

@task
def nothing(*_):
    return {}

@flow
def empty(study):
    for _ in range(4):
        timed(nothing, study)

@flow
def ours(study):
    batch = timed(provider.sample, study)
    outcome = timed(provider.launch_trials, study, batch)
    timed(provider.evaluate_and_prune, study, outcome)
    timed(provider.promote_best, study)

@flow
def large(study):
    batch = timed(provider.sample, study)
    timed(provider.evaluate_and_prune, study, sys.argv[3])

@flow
def launch(study):
    timed(provider.launch_trials, study, provider.sample(study))

spans, sizes = [], []
{"empty": empty, "ours": ours, "large": large, "launch": launch}[sys.argv[1]](json.loads(sys.argv[2]))
print(json.dumps({"spans": spans, "sizes": sizes, "calls": calls}))
"""


def run(server: PrefectServer, flow: str, study: Any, batch: str = "", epoch: float = 0.0) -> dict[str, Any]:
    """Runs a flow in a process of its own, and gives what it says of itself."""
    command = [sys.executable, "-c", FLOWS, flow, json.dumps(study), batch]
    variables = {**server.environment, "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}", "PREFECT_LOGGING_LEVEL": "ERROR"}
    variables["CHAOS_EPOCH_SECONDS"] = str(epoch)
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def steps(server: PrefectServer, folder: Path, times: int) -> None:
    """Prints what each step takes above an empty task."""
    found: dict[str, list[list[float]]] = {"empty": [], "ours": []}
    for number in range(times):
        for name in random.sample(list(found), 2):
            study = {**SPEC, "store": str(folder / f"steps-{number}")}
            found[name].append(run(server, name, study)["spans"])
    print("seconds of a step above an empty task")
    for place, step in enumerate(STEPS):
        empty, ours = (statistics.median(spans[place] for spans in found[name]) for name in ("empty", "ours"))
        print(f"  {step:20} {ours - empty:6.2f} s   ({ours:.2f} and {empty:.2f})")


def kept(server: PrefectServer, folder: Path, sizes: tuple[int, ...]) -> None:
    """Prints what a step's result and the artifacts of a study take."""
    print("bytes of the results of sample and evaluate_and_prune, and of the artifacts")
    for trials in sizes:
        url = folder / f"study-{trials}"
        results = run(server, "large", str(url), write(url, trials))["sizes"]
        shown = [len(json.dumps(row["data"])) for row in server.rows("artifacts", sort="CREATED_DESC", limit=20)]
        print(f"  {trials:6} trials: {results[0]} and {results[1]}; {sum(shown)}")


def calls(server: PrefectServer, folder: Path, seconds: float) -> None:
    """Prints how often a launch calls Prefect's API while its trials report."""
    told = run(server, "launch", {**SPEC, "name": "calls", "store": str(folder)}, epoch=seconds / 40)
    print(f"API calls a second of a launch of {told['spans'][-1]:.0f} s: {told['calls'] / told['spans'][-1]:.2f}")


def imports(server: PrefectServer, times: int) -> None:
    """Prints the processor time of an import after Prefect's own."""
    program = (
        "import time; begun = time.process_time(); from prefect import flow, task; between = time.process_time()\n"
        "import tune_tasks_prefect; print(between - begun, time.process_time() - between)"
    )
    rows = []
    for _ in range(times):
        done = subprocess.run(
            [sys.executable, "-c", program], env=server.environment, check=True, capture_output=True, text=True
        )
        rows.append([float(number) for number in done.stdout.split()])
    prefect, ours = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"import: {ours:.2f} s of processor after Prefect's {prefect:.2f} s")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="that the launch lasts whose calls are counted")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="prefect-tasks-"))
    try:
        with serve(folder / "server") as server:
            imports(server, options.times)
            steps(server, folder, options.times)
            kept(server, folder, (100, options.trials))
            calls(server, folder, options.seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
