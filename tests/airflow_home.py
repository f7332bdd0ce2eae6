"""A real Airflow for the tests: a home and a database of its own, and DAG runs by `dag.test()` in this process.

Import this before anything of Airflow, which reads the environment as soon as it is loaded.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BUNDLES = {"project": ROOT / "dags", "tests": ROOT / "tests" / "dags" / "pipelines"}
_LOCAL = "airflow.dag_processing.bundles.local.LocalDagBundle"
_HOME = tempfile.mkdtemp(prefix="airflow-")

atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ |= {
    "AIRFLOW_HOME": _HOME,
    "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "0",  # it would switch off the timer that ends a test that hangs
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
        [{"name": name, "classpath": _LOCAL, "kwargs": {"path": str(path)}} for name, path in BUNDLES.items()]
    ),
}


@functools.cache
def migrate() -> None:
    """Makes the database; once in a session, because it takes some ten seconds."""
    command = [Path(sys.executable).with_name("airflow"), "db", "migrate"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def load(bundle: str, dag_id: str) -> Any:
    """The DAG of that name from the file of that name in a bundle."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(BUNDLES[bundle] / f"{dag_id}.py"))
    assert not bag.import_errors
    return bag.dags[dag_id]


def run(bundle: str, dag_id: str, conf: dict[str, Any], moment: datetime | None = None) -> Run:
    """Runs a DAG, task by task; a second time at the same moment is the same DAG run, cleared."""
    migrate()
    at = {"logical_date": moment, "run_after": moment} if moment else {}
    return Run(load(bundle, dag_id).test(run_conf=conf, **at))


class Run:
    """A DAG run that is over."""

    def __init__(self, dag_run: Any) -> None:
        self.id: str = dag_run.run_id
        self._tasks = {ti.task_id: ti for ti in dag_run.get_task_instances()}

    @property
    def states(self) -> dict[str, str]:
        """The state of every task."""
        return {name: str(ti.state) for name, ti in self._tasks.items()}

    def tries(self, task: str) -> int:
        """How often a task was tried."""
        return int(self._tasks[task].try_number)

    def result(self, task: str) -> Any:
        """What a task returned, as the database has it."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        with create_session() as session:
            query = XComModel.get_many(run_id=self.id, task_ids=task, key="return_value")
            found = session.scalars(query).first()
            return None if found is None else XComModel.deserialize_value(found)
