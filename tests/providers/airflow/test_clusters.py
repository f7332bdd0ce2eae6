"""A cluster for one run of a DAG: its name, its place among the tasks, and a real one on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tune_tasks as tt
from tests.airflow_home import Run, load, migrate
from tests.studies import write_study
from tune_tasks.errors import ConfigError
from tune_tasks.execution.jobs import Jobs
from tune_tasks_airflow.clusters import NameClusterOperator, cluster_name
from tune_tasks_airflow.local import LocalRay, StartLocalRayOperator, StopLocalRayOperator
from tune_tasks_airflow.resources import KubeRay


def context(run_id: str = "r", map_index: int = -1) -> Any:
    ti = SimpleNamespace(dag_id="d", task_id="t", run_id=run_id, try_number=1, map_index=map_index)
    return {"ti": ti, "run_id": run_id}


def played(dag_id: str, conf: dict[str, Any], moment: datetime | None = None) -> tuple[str, Run]:
    """The state of a run of a DAG of the tests, and the run; a second one of the same moment is the first, cleared."""
    migrate()
    at = {"logical_date": moment, "run_after": moment} if moment else {}
    done = load("tests", dag_id).test(run_conf=conf, **at)
    return str(done.state), Run(done)


@pytest.mark.parametrize("dag_id", ["retrain", "1st.DAG", "Prüfung", "a" * 200, "x_" * 40, "-"])
def test_a_name_is_one_that_kubernetes_and_kuberay_take(dag_id: str) -> None:
    name = cluster_name(dag_id, "scheduled__2026-11-22T00:00:00+00:00", "cluster.name")
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= 47


def test_a_name_is_the_same_for_every_try_and_another_for_each_run_group_and_airflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = NameClusterOperator(task_id="cluster.name")
    assert named.execute(context()) == named.execute(context())
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://a")
    here = cluster_name("d", "r", "t")
    others = [cluster_name("d", "r2", "t"), cluster_name("d", "r", "t2"), cluster_name("d", "r", "t", 1)]
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://b")
    assert len({here, *others, cluster_name("d", "r", "t")}) == 5


@pytest.mark.parametrize("dag_id", ["on_kubernetes", "on_this_machine"])
def test_the_deletion_waits_for_every_task_and_every_task_for_the_cluster(dag_id: str) -> None:
    dag = load("tests", dag_id)
    name, start, stop = (dag.get_task(f"cluster.{each}") for each in ("name", "start", "stop"))
    assert (name.is_setup, start.is_setup, stop.is_teardown) == (True, True, True)
    work = set(dag.task_ids) - {name.task_id, start.task_id, stop.task_id}
    assert len(work) >= 2
    assert stop.upstream_task_ids == {*work, name.task_id, start.task_id}
    for task_id in work:
        assert start.task_id in dag.get_task(task_id).get_flat_relative_ids(upstream=True)


def test_without_the_kubernetes_provider_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "airflow.providers.cncf.kubernetes.hooks.kubernetes", None)
    with pytest.raises(ConfigError, match=r"pip install 'tune-tasks-airflow\[kubernetes\]'"):
        KubeRay("kubernetes_default")


def test_the_modules_load_neither_kubernetes_nor_ray() -> None:
    hooks = "airflow.providers.cncf.kubernetes.hooks"  # the namespace above it Airflow loads where it is installed
    heavy = {"kubernetes", "kubernetes_asyncio", hooks, "ray", "tune_tasks.spec"}
    program = f"import tune_tasks_airflow.kuberay, tune_tasks_airflow.local, sys\nprint({heavy!r} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.fixture
def name() -> Any:
    """The name of a cluster of which nothing is left when the test is over."""
    given = f"tune-test-{os.getpid():08x}"
    yield given
    LocalRay(given).stop()


@pytest.mark.ray
def test_a_local_cluster_is_found_by_a_retry_and_is_gone_with_all_it_started(name: str) -> None:
    start = StartLocalRayOperator(task_id="t", cluster=name, num_cpus=1)
    made = start.execute(context())
    jobs, here = Jobs(made["address"]), LocalRay(name)
    jobs.submit("sleeps", f"{sys.executable} -c 'import time; time.sleep(600)'", {})
    before = here.processes()
    head = next(pid for pid in before if b"start\0--head" in Path(f"/proc/{pid}/cmdline").read_bytes())
    assert start.execute(context()) == made
    assert head in here.processes()
    os.kill(head, signal.SIGKILL)  # whoever would have ended the others is gone
    stop = StopLocalRayOperator(task_id="t", cluster=name)
    stop.execute(context())
    assert here.processes() == set()
    assert not any(alive(pid) for pid in before)
    assert not here.folder.exists()
    stop.execute(context())


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie that waits for this one to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.ray
def test_a_cluster_whose_start_was_killed_is_replaced_and_deleted(name: str) -> None:
    here = LocalRay(name)
    program = (
        "import os\nfrom tune_tasks_airflow.local import LocalRay\n"
        "LocalRay._wait = lambda *_: os.kill(os.getpid(), 9)\n"
        f"LocalRay({name!r}).start(1, 60)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    left = here.processes()
    assert left
    address = here.start(1, 120)
    assert Jobs(address).version()
    assert not any(alive(pid) for pid in left)
    assert here.stop() > 0
    assert here.processes() == set()


@pytest.mark.ray
@pytest.mark.parametrize("fail", [False, True])
def test_a_study_is_tuned_on_a_ray_of_its_own_which_is_gone_afterwards(tmp_path: Path, fail: bool) -> None:
    spec = write_study(tmp_path, execution={"runner": "job", "batch": 4})
    moment = datetime(2026, 11, 22, 1 if fail else 2, tzinfo=UTC)
    state, done = played("on_this_machine", {"spec": str(spec), "fail": fail}, moment)
    expected = {"cluster.stop": "success", "cluster.last": "failed" if fail else "success"}
    assert {task: done.states[task] for task in expected} == expected
    assert state == ("failed" if fail else "success")
    study = tt.open_study(str(tmp_path / "studies" / "small"))
    assert study.spec.execution.address is None
    assert len(study.trials) == 4
    here = LocalRay(done.result("cluster.name"))
    assert here.processes() == set()
    assert not here.folder.exists()
