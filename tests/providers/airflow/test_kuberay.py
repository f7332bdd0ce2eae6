"""A cluster on Kubernetes for one run of a DAG beside a small API server: whatever fails, nothing of it is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from sqlalchemy import select

from tests.airflow_home import ROOT, Run, load, migrate
from tests.execution.test_jobs import dashboard
from tests.servers.kubernetes import NAMESPACE, Kubernetes, kubernetes
from tune_tasks.errors import Unavailable
from tune_tasks_airflow.kuberay import RayClusterTrigger, StartRayClusterOperator, StopRayClusterOperator

pytest.importorskip("kubernetes", reason="apache-airflow-providers-cncf-kubernetes is not installed")

MANIFEST = ROOT / "infra" / "kubernetes" / "raycluster.yaml"
NAME = "tune-d-12345678"
KINDS = {"RayCluster": None, "RayJob": timedelta(hours=1)}
PLURAL = {"RayCluster": "rayclusters", "RayJob": "rayjobs"}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    with kubernetes() as made:
        monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", made.connection)
        monkeypatch.setenv("AIRFLOW__WORKERS__API_RETRIES", "1")
        yield made


@pytest.fixture
def head() -> Iterator[str]:
    """A dashboard that answers."""
    with dashboard(lambda *_: (200, {"ray_version": "2.60.0"})) as (address, _):
        yield address


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def context() -> Any:
    return {"ti": SimpleNamespace(dag_id="d", task_id="t", run_id="r", try_number=1, map_index=-1)}


def starting(head: str, kind: str = "RayJob", **options: Any) -> StartRayClusterOperator:
    given = {"manifest": yaml.safe_load(MANIFEST.read_text()), "ready_within": 5.0, "poll_interval": 0.05, **options}
    return StartRayClusterOperator(task_id="t", cluster=NAME, expires=KINDS[kind], address=head, **given)


def start(head: str, kind: str = "RayJob", **options: Any) -> Any:
    return starting(head, kind, **options).execute(context())


def stop(kind: str = "RayJob", **options: Any) -> None:
    StopRayClusterOperator(task_id="t", cluster=NAME, kind=kind, poll_interval=0.05, **options).execute(context())


def played(conf: dict[str, Any], moment: datetime | None = None) -> tuple[str, Run]:
    """The state of a run of the DAG of the tests, and the run; a second one of a moment is the first, cleared."""
    migrate()
    at = {"logical_date": moment, "run_after": moment} if moment else {}
    done = load("tests", "on_kubernetes").test(run_conf={"manifest": str(MANIFEST), **conf}, **at)
    return str(done.state), Run(done)


def test_a_run_gets_a_cluster_of_its_own_and_leaves_nothing(api: Kubernetes, head: str) -> None:
    state, done = played({"address": head})
    assert (state, set(done.states.values())) == ("success", {"success"})
    assert done.result("cluster.work") == head
    assert api.objects == {}
    (made,) = api.created
    assert made["metadata"]["name"] == done.result("cluster.name") == done.result("cluster.start")["name"]
    assert made["metadata"]["annotations"] == {"tune-tasks/dag-id": "on_kubernetes", "tune-tasks/run-id": done.id}


def test_a_task_that_fails_between_fails_the_run_and_the_cluster_is_deleted(api: Kubernetes, head: str) -> None:
    state, done = played({"address": head, "fail": True})
    wanted = {"cluster.work": "failed", "cluster.last": "upstream_failed", "cluster.stop": "success"}
    assert {task: done.states[task] for task in wanted} == wanted
    assert state == "failed"
    assert (len(api.created), api.objects) == (1, {})


def test_a_cluster_that_never_is_ready_is_deleted_though_its_setup_failed(api: Kubernetes, head: str) -> None:
    api.status = "no room"
    state, done = played({"address": head})
    wanted = {"cluster.start": "failed", "cluster.work": "upstream_failed", "cluster.stop": "success"}
    assert {task: done.states[task] for task in wanted} == wanted
    assert done.tries("cluster.start") == 2
    assert state == "failed"
    assert (len(api.created), api.objects) == (1, {})


def test_a_run_that_a_person_marks_as_failed_while_the_cluster_is_made_still_deletes_it(
    api: Kubernetes, head: str
) -> None:
    from airflow.api.common.mark_tasks import set_dag_run_state_to_failed
    from airflow.models.dagrun import DagRun
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session

    _, done = played({"address": head})
    with create_session() as session:
        run = session.scalars(select(DagRun).where(DagRun.dag_id == "on_kubernetes", DagRun.run_id == done.id)).one()
        tasks = {each.task_id: each for each in run.get_task_instances(session=session)}
        for name, each in tasks.items():
            each.state = {"cluster.name": "success", "cluster.start": "running"}.get(name)
        run.state = "running"
        session.flush()
        run.dag = SerializedDagModel.get_dag("on_kubernetes", session=session)
        set_dag_run_state_to_failed(dag=run.dag, run_id=done.id, commit=True, session=session)
        left = run.task_instance_scheduling_decisions(session=session).schedulable_tis
        assert str(tasks["cluster.start"].state) == "failed"
        assert [each.task_id for each in left] == ["cluster.stop"]


def test_a_setup_that_cannot_create_leaves_a_teardown_with_nothing_to_do(api: Kubernetes, head: str) -> None:
    api.answers = {"POST": 403}
    state, done = played({"address": head})
    assert (state, done.states["cluster.start"], done.tries("cluster.start")) == ("failed", "failed", 1)
    assert done.states["cluster.stop"] == "success"


def test_a_run_that_is_cleared_makes_its_cluster_again_under_its_name(api: Kubernetes, head: str) -> None:
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    for _ in range(2):
        assert played({"address": head}, moment)[0] == "success"
    first, second = api.created
    assert first["metadata"]["name"] == second["metadata"]["name"]
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    assert api.objects == {}


def test_a_retry_finds_the_cluster_that_is_there(api: Kubernetes, head: str, kind: str) -> None:
    made = start(head, kind)
    assert made == {"address": head, "kind": kind, "name": NAME, "namespace": NAMESPACE}
    assert start(head, kind) == made
    assert len(api.created) == 1
    stop(kind)
    stop(kind)
    assert api.objects == {}


def test_an_answer_that_was_lost_is_one_cluster(api: Kubernetes, head: str, kind: str) -> None:
    def lose() -> None:
        raise ConnectionError

    api.on_create = lose
    with pytest.raises(Unavailable, match="no Kubernetes answers"):
        start(head, kind)
    assert start(head, kind)["name"] == NAME
    assert len(api.created) == 1


def test_a_task_killed_between_the_request_and_its_answer_leaves_one_cluster_that_is_found(
    api: Kubernetes, head: str, kind: str
) -> None:
    program = (
        "from tests.providers.airflow.test_kuberay import start\n"
        f"print('begins', flush=True); start({head!r}, {kind!r}); print('not reached')"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        api.on_create = lambda: os.kill(process.pid, signal.SIGKILL)
        said = process.communicate(timeout=60)[0]
    assert (process.returncode, "begins" in said, "not reached" in said) == (-signal.SIGKILL, True, False)
    assert api.running == [NAME]
    api.on_create = lambda: None
    start(head, kind)
    assert len(api.created) == 1
    stop(kind)
    assert api.objects == {}


def test_what_somebody_else_made_is_neither_taken_nor_deleted(api: Kubernetes, head: str, kind: str) -> None:
    theirs = api.put(PLURAL[kind], NAME, team="vision")
    for attempt in (lambda: start(head, kind), lambda: stop(kind)):
        with pytest.raises(AirflowFailException, match=f"there is a {kind} {NAME} .* somebody else made it"):
            attempt()
    assert api.objects[PLURAL[kind], NAME] == theirs
    assert ("DELETE", PLURAL[kind]) not in api.asked


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_cluster_made_anew_while_the_old_one_is_deleted_stays(
    api: Kubernetes, head: str, kind: str, moment: str
) -> None:
    start(head, kind)
    again: list[Any] = []

    def replace() -> None:
        if not again:
            again.append(api.put(PLURAL[kind], NAME, **{"tune-tasks/cluster": NAME}))

    if moment == "before":
        api.on_delete = replace
    else:
        deletion, collect = ("DELETE", PLURAL[kind]), api._collect
        api._collect = lambda: (collect(), deletion in api.asked[:-1] and replace())
    stop(kind)
    assert api.objects[PLURAL[kind], NAME] == again[0]


def test_the_deletion_waits_until_the_pods_are_gone(api: Kubernetes, head: str, kind: str) -> None:
    start(head, kind)
    api.lingers = 0.3
    before = time.time()
    stop(kind)
    assert time.time() - before >= 0.3
    assert api.objects == {}
    assert api.asked.count(("DELETE", PLURAL[kind])) == 1


def test_a_deletion_that_hangs_says_what_it_waits_for_and_is_tried_again(api: Kubernetes, head: str) -> None:
    start(head)
    api.lingers = 3600.0
    with pytest.raises(Unavailable, match=f"{NAME} is still being deleted, and waits for foregroundDeletion"):
        stop(gone_within=0.1)


def test_a_new_try_waits_for_the_end_of_a_cluster_that_is_being_deleted(api: Kubernetes, head: str, kind: str) -> None:
    start(head, kind)
    found = api.objects[PLURAL[kind], NAME]
    found["metadata"]["deletionTimestamp"], found["deleted"], api.lingers = "now", time.time(), 0.3
    start(head, kind)
    assert len(api.created) == 2
    assert "deletionTimestamp" not in api.objects[PLURAL[kind], NAME]["metadata"]


def test_a_cluster_that_nobody_deletes_ends_by_itself_at_its_age(api: Kubernetes, head: str) -> None:
    start(head)
    assert api.running == [NAME]
    api.aged = 3601.0
    assert api.running == []
    api.aged = 0.0
    start(head, "RayCluster")
    api.aged = 1e9
    assert api.running == [NAME]  # which is why that is not the default


def test_a_cluster_that_has_ended_is_followed_by_another(api: Kubernetes, head: str) -> None:
    start(head)
    api.objects["rayjobs", NAME]["made"] -= 3601.0
    start(head)
    assert len(api.created) == 2
    assert api.running == [NAME]


def test_a_cluster_that_ends_while_it_is_waited_for_is_left_to_the_retries(api: Kubernetes, head: str) -> None:
    api.status, api.on_create = "no room", lambda: setattr(api, "aged", 3601.0)
    with pytest.raises(Unavailable, match=f"the RayJob {NAME} was made and it has ended: passed the active"):
        start(head)


def test_what_kuberay_itself_refuses_fails_at_once(api: Kubernetes, head: str) -> None:
    api.status = "invalid"
    with pytest.raises(AirflowFailException, match="manifest: KubeRay refuses it: the RayJob is invalid"):
        start(head)


def test_a_cluster_that_is_not_ready_in_time_says_why(api: Kubernetes, head: str, kind: str) -> None:
    api.status = "no room"
    with pytest.raises(Unavailable, match=rf"the {kind} {NAME} is not ready after 0.1 s: .*HeadPodReady .*no node has"):
        start(head, kind, ready_within=0.1)


def test_a_cluster_whose_head_does_not_answer_is_not_ready(api: Kubernetes) -> None:
    with pytest.raises(Unavailable, match=r"not ready after 0.1 s: .*no Ray dashboard answers at http://127.0.0.1:1"):
        start("http://127.0.0.1:1", ready_within=0.1)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_kubernetes_that_is_busy_is_left_to_the_retries_and_waited_for_once_the_cluster_is_there(
    api: Kubernetes, head: str, status: int
) -> None:
    api.answers = {"POST": status}
    with pytest.raises(Unavailable, match=rf"Kubernetes cannot create rayjobs.ray.io .*: {status} as the test says"):
        start(head)
    api.answers = {"GET": status}
    with pytest.raises(Unavailable, match=f"not ready after 0.2 s: Kubernetes cannot get .*{status}"):
        start(head, ready_within=0.2)
    api.answers = {"DELETE": status}
    with pytest.raises(Unavailable, match=f"Kubernetes cannot delete .*{status}"):
        stop()
    api.answers = {}
    stop()
    assert api.objects == {}


@pytest.mark.parametrize("status", [401, 403])
def test_a_kubernetes_that_does_not_let_us_in_is_named_with_the_right_that_is_missing(
    api: Kubernetes, head: str, status: int
) -> None:
    api.answers = {"POST": status}
    with pytest.raises(AirflowFailException, match=r"'kubernetes_default' may not create rayjobs.ray.io in the"):
        start(head)
    api.answers = {}
    start(head)
    api.answers = {"DELETE": status}
    with pytest.raises(AirflowFailException, match=r"may not delete rayjobs.ray.io in the namespace 'tuning'"):
        stop()


def test_a_kubernetes_that_is_not_there_is_left_to_the_retries(
    api: Kubernetes, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.url = "http://127.0.0.1:1"
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", api.connection)
    for attempt in (lambda: start(head), stop):
        with pytest.raises(Unavailable, match=r"'kubernetes_default': no Kubernetes answers: .*refused"):
            attempt()


def test_a_namespace_without_kuberay_says_what_to_install(api: Kubernetes, head: str) -> None:
    with pytest.raises(AirflowFailException, match=r"404 namespaces .* not found; install the KubeRay operator"):
        start(head, namespace="elsewhere")
    stop(namespace="elsewhere")


def test_a_connection_that_is_not_there_says_how_to_make_it() -> None:
    with pytest.raises(
        AirflowFailException, match=r"'none_such' leads to no Kubernetes .*airflow connections add none"
    ):
        start("http://head", kubernetes_conn_id="none_such")


def test_a_field_that_kuberay_does_not_have_is_refused_and_not_left_out(api: Kubernetes, head: str, kind: str) -> None:
    wrong = yaml.safe_load(MANIFEST.read_text())
    wrong["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    wrong["spec"]["workerGroups"] = []
    with pytest.raises(AirflowFailException, match=r"it: 422 .*num-cpus: Invalid .*unknown field .*workerGroups"):
        start(head, kind, manifest=wrong)
    assert api.objects == {}


def test_the_manifest_of_a_file_is_a_template(api: Kubernetes, head: str, tmp_path: Path) -> None:
    text = MANIFEST.read_text().replace("team/tune-tasks", "team/tune-tasks:{{ run_id }}")
    (tmp_path / "cluster.yaml").write_text(text)
    played({"manifest": str(tmp_path / "cluster.yaml"), "address": head}, datetime(2026, 11, 21, tzinfo=UTC))
    (made,) = api.created
    (container,) = made["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert container["image"] == "team/tune-tasks:manual__2026-11-21T00:00:00+00:00"


def fired(trigger: RayClusterTrigger) -> dict[str, Any]:
    async def first() -> dict[str, Any]:
        async for event in RayClusterTrigger(**json.loads(json.dumps(trigger.serialize()[1]))).run():
            return dict(event.payload)
        raise AssertionError("it ended without an event")

    return asyncio.run(asyncio.wait_for(first(), 30))


def deferred(attempt: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as raised:
        attempt()
    return raised.value


def test_a_deferred_wait_ends_when_the_cluster_is_ready(api: Kubernetes, head: str, kind: str) -> None:
    api.status = "no room"
    left = deferred(lambda: start(head, kind, deferrable=True))
    api.status = "ready"
    event = fired(left.trigger)
    assert event == {"sign": "ready"}
    again = starting(head, kind, deferrable=True)
    assert again.resume(context(), event, **left.kwargs)["address"] == head
    assert len(api.created) == 1


def test_a_deferred_wait_ends_with_what_the_waiting_task_would_say(api: Kubernetes, head: str) -> None:
    api.status = "no room"
    left = deferred(lambda: start(head, deferrable=True, ready_within=0.2))
    assert fired(left.trigger) == {"sign": "waits"}
    with pytest.raises(Unavailable, match="is not ready after"):
        starting(head).resume(context(), {}, **left.kwargs)
    left = deferred(lambda: start(head, deferrable=True))
    api.answers = {"GET": 403}
    assert fired(left.trigger) == {"sign": "refused"}
    with pytest.raises(AirflowFailException, match="may not get"):
        starting(head).resume(context(), {}, **left.kwargs)
