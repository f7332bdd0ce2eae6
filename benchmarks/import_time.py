"""What importing costs: tune_tasks alone, and a DAG file with the provider's operators beside one without them.

Run it with the interpreter of the environment that has Airflow: `.venv-airflow/bin/python benchmarks/import_time.py`.
Every measurement is a fresh process that times its own imports; the orders are mixed and the medians printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

PLAIN = """
import airflow
from airflow.sdk import DAG, BaseOperator, TaskGroup

with DAG("plain"), TaskGroup("group"):
    for number in range(13):
        BaseOperator(task_id=f"task_{number}")
"""
OURS = """
import airflow
from airflow.sdk import DAG
from tune_tasks_airflow.rounds import tune_rounds

with DAG("ours"):
    tune_rounds("study.yaml", rounds=4)
"""
CASES = {
    "import tune_tasks": "import tune_tasks",
    "import airflow": "import airflow",
    "import airflow, and a DAG file of 13 plain operators": PLAIN,
    "import airflow, and a DAG file of 13 tune_tasks operators": OURS,
}
TIMED = """
import sys, time
wall, cpu = time.perf_counter(), time.process_time()
exec(sys.argv[1])
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def measure(statement: str) -> tuple[float, float]:
    """Wall and CPU seconds of a statement in a fresh process."""
    done = subprocess.run([sys.executable, "-c", TIMED, statement], check=True, capture_output=True, text=True)
    wall, cpu = done.stdout.split()[-2:]
    return float(wall), float(cpu)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=9, help="processes for each line (default: 9)")
    repeat = parser.parse_args().repeat
    with tempfile.TemporaryDirectory() as home:
        os.environ["AIRFLOW_HOME"] = home
        for statement in CASES.values():
            measure(statement)  # reads the files once, so that no line pays for a cold disk
        rounds = [{name: measure(statement) for name, statement in CASES.items()} for _ in range(repeat)]
    medians = {
        name: tuple(statistics.median(times[name][kind] for times in rounds) for kind in (0, 1)) for name in CASES
    }
    for name, (wall, cpu) in [("", ("wall s", "CPU s")), *medians.items()]:
        print(f"{name:<60}{_shown(wall)}{_shown(cpu)}")
    plain, ours = list(medians.values())[-2:]
    print(f"{'the operators add':<60}{_shown(ours[0] - plain[0])}{_shown(ours[1] - plain[1])}")


def _shown(value: float | str) -> str:
    return f"{value:>10}" if isinstance(value, str) else f"{value:10.3f}"


if __name__ == "__main__":
    main()
