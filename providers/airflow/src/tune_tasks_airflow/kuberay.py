"""A Ray cluster on Kubernetes for one run of a DAG: KubeRay makes it, and the teardown has it deleted.

Whoever waits holds no worker where it is deferred. This module must not delete a cluster that another run, or another
person, has made.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.configuration import conf
from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async  # back to the loop, over which Airflow is asked

from tune_tasks_airflow.clusters import ClusterGroup, cluster_group, patient
from tune_tasks_airflow.operators import failing_at_once
from tune_tasks_airflow.resources import LABEL, KubeRay, Sign, Standing, resource, standing

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

CONNECTION = "kubernetes_default"
ADDRESS = "http://{host}"
DAY = timedelta(days=1)


@contextmanager
def kuberay_cluster(
    manifest: str | Path | Mapping[str, Any],
    *,
    group_id: str = "cluster",
    namespace: str | None = None,
    expires: timedelta | None = DAY,
    kubernetes_conn_id: str = CONNECTION,
    start: Mapping[str, Any] | None = None,
    stop: Mapping[str, Any] | None = None,
) -> Iterator[ClusterGroup]:
    """Gives the tasks of the block a cluster, which is deleted when all of them are over, however they ended.

    What is given goes to `StartRayClusterOperator`, which see; `start` and `stop` are further arguments of the two
    tasks, such as `{"deferrable": True}`. The cluster's `address` is that of its Jobs API, for the launch:
    `launch={"address": cluster.address}`.
    """
    where: dict[str, Any] = {"namespace": namespace, "kubernetes_conn_id": kubernetes_conn_id}

    def begin(name: XComArg) -> BaseOperator:
        return StartRayClusterOperator(
            task_id="start", cluster=name, manifest=manifest, expires=expires, **where, **(start or {})
        )

    def end(name: XComArg) -> BaseOperator:
        kind = "RayJob" if expires else "RayCluster"
        return StopRayClusterOperator(task_id="stop", cluster=name, kind=kind, **where, **patient(stop))

    with cluster_group(group_id, begin, end) as group:
        yield group


class KubeRayOperator(BaseOperator):
    """A task about the cluster of the name `cluster`, in `namespace`, by default that of the connection."""

    template_fields: Sequence[str] = ("cluster", "namespace", "kubernetes_conn_id")

    def __init__(
        self,
        *,
        cluster: str | XComArg,
        namespace: str | None = None,
        kubernetes_conn_id: str = CONNECTION,
        poll_interval: float = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.namespace = namespace
        self.kubernetes_conn_id = kubernetes_conn_id
        self.poll_interval = poll_interval

    def _kuberay(self) -> KubeRay:
        return KubeRay(self.kubernetes_conn_id, self.namespace)


class StartRayClusterOperator(KubeRayOperator):
    """Makes the RayCluster of a manifest and returns where it takes jobs, once it is ready and answers.

    `manifest` is a mapping, YAML, or the path of a YAML file, from the folder of the DAG file; all of it is a template.
    The name in it is not taken: `cluster` is the name, and a retry or a clear finds what is there under it. What
    somebody else has made under that name is refused.

    `expires`: KubeRay itself deletes the cluster at that age, also where Airflow has gone for good, since a RayJob
    holds it; with None it is a plain RayCluster, which stays until its teardown. `ready_within` are the seconds that it
    may take to be ready, in each try. `address` is made from the `{host}` of the head's service, which only what runs
    in the same Kubernetes can reach, and the `{name}` and `{namespace}`: give that of your ingress elsewhere.
    """

    template_fields: Sequence[str] = (*KubeRayOperator.template_fields, "manifest", "address")
    template_fields_renderers: ClassVar[dict[str, str]] = {"manifest": "yaml"}

    def __init__(
        self,
        *,
        manifest: str | Path | Mapping[str, Any],
        expires: timedelta | None = DAY,
        address: str = ADDRESS,
        ready_within: float = 1800.0,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.manifest = str(manifest) if isinstance(manifest, Path) else manifest
        self.expires = expires
        self.address = address
        self.ready_within = ready_within
        self.deferrable = deferrable

    def execute(self, context: Context) -> dict[str, Any]:
        """Makes the cluster, unless it is there, and waits for it."""
        deadline = time.time() + self.ready_within
        with failing_at_once():
            body = self._body(context)
            kuberay = self._kuberay()
            self._ensure(kuberay, body, deadline)
            return self._until_ready(kuberay, body["kind"], deadline)

    def resume(self, context: Context, event: dict[str, Any], kind: str, deadline: float) -> dict[str, Any]:  # noqa: ARG002  # Airflow gives them
        """Goes on when the trigger has seen something."""
        with failing_at_once():
            return self._until_ready(self._kuberay(), kind, deadline)

    def _body(self, context: Context) -> dict[str, Any]:
        instance = context["ti"]
        expires = None if self.expires is None else int(self.expires.total_seconds())
        notes = {"tune-tasks/dag-id": instance.dag_id, "tune-tasks/run-id": instance.run_id}
        manifest = self._manifest(context)
        return resource(manifest, str(self.cluster), namespace=self.namespace, expires=expires, notes=notes)

    def _manifest(self, context: Context) -> Any:
        import yaml  # type: ignore[import-untyped]  # it ships no types

        from tune_tasks.errors import ConfigError, invalid

        text = self.manifest
        if not isinstance(text, str):
            return text
        if "\n" not in text and text.endswith((".yaml", ".yml", ".json")):
            path = Path(self.dag.fileloc).parent / text  # an absolute one stays
            try:
                text = self.render_template(path.read_text(encoding="utf-8"), context)
            except OSError as error:
                raise ConfigError(f"manifest: {str(path)!r} cannot be read: {error}") from error
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise invalid("manifest", text, f"it is no YAML: {error}") from error

    def _ensure(self, kuberay: KubeRay, body: Mapping[str, Any], deadline: float) -> None:
        """Creates the resource, or finds that it is there; one that is over, or goes, is followed by another."""
        from tune_tasks.errors import Unavailable

        kind, name = body["kind"], body["metadata"]["name"]
        while kuberay.create(body) is None:
            found = kuberay.get(kind, name)
            _check_ours(found, name)
            stands = standing(found)
            if stands.sign in {"ready", "waits"}:
                self.log.info("the %s %s in %s is there", kind, name, kuberay.namespace)
                return
            if time.time() > deadline:
                raise Unavailable(f"the {kind} {name} of before does not go away: {stands.told}")
            if found is not None and not found["metadata"].get("deletionTimestamp"):
                kuberay.delete(found)
            time.sleep(self.poll_interval)
        until = f"; it is deleted by its teardown, or {self.expires} from now" if self.expires else ""
        self.log.info("made the %s %s in %s%s", kind, name, kuberay.namespace, until)

    def _until_ready(self, kuberay: KubeRay, kind: str, deadline: float) -> dict[str, Any]:
        from tune_tasks.errors import ConfigError, Unavailable

        name = str(self.cluster)
        while True:
            stands = look(kuberay, kind, name, self.address)
            match stands.sign:
                case "ready":
                    self.log.info("Ray takes jobs at %s", stands.told)
                    return {"address": stands.told, "kind": kind, "name": name, "namespace": kuberay.namespace}
                case "refused":
                    raise ConfigError(f"manifest: KubeRay refuses it: {stands.told}")
                case "gone":
                    raise Unavailable(f"the {kind} {name} was made and {stands.told}")
            if time.time() > deadline:
                raise Unavailable(f"the {kind} {name} is not ready after {self.ready_within:g} s: {stands.told}")
            self.log.info("waiting: %s", stands.told)
            if self.deferrable:
                self._leave(kind, name, kuberay.namespace, deadline)
            time.sleep(self.poll_interval)

    def _leave(self, kind: str, name: str, namespace: str, deadline: float) -> NoReturn:
        trigger = RayClusterTrigger(
            where=[self.kubernetes_conn_id, namespace],
            which=[kind, name, self.address],
            deadline=deadline,
            poll_interval=self.poll_interval,
        )
        self.defer(trigger=trigger, method_name="resume", kwargs={"kind": kind, "deadline": deadline})


class StopRayClusterOperator(KubeRayOperator):
    """Deletes the cluster of that name and returns when it and its pods are gone; content where it never was.

    What somebody else made under that name stays. `kind` is RayJob for a cluster that expires, as it does by default.
    `gone_within` are the seconds that it may take; Kubernetes goes on with a deletion that takes longer.
    """

    def __init__(self, *, kind: str = "RayJob", gone_within: float = 600.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.gone_within = gone_within

    def execute(self, context: Context) -> None:  # noqa: ARG002  # Airflow gives it
        """Deletes and waits."""
        with failing_at_once():
            self._delete(self._kuberay(), str(self.cluster))

    def _delete(self, kuberay: KubeRay, name: str) -> None:
        from tune_tasks.errors import Unavailable

        deadline, found = time.time() + self.gone_within, kuberay.get(self.kind, name)
        _check_ours(found, name)
        uid = _uid(found)
        while found is not None and _uid(found) == uid:
            if not found["metadata"].get("deletionTimestamp"):
                self.log.info("deleting the %s %s in %s", self.kind, name, kuberay.namespace)
                kuberay.delete(found)
            elif time.time() > deadline:
                waits = ", ".join(found["metadata"].get("finalizers") or ()) or "nothing that it names"
                raise Unavailable(f"the {self.kind} {name} is still being deleted, and waits for {waits}")
            time.sleep(self.poll_interval)
            found = kuberay.get(self.kind, name)
        told = "another of that name was made since, and stays" if found else "there is none now"
        self.log.info("the %s %s in %s: %s", self.kind, name, kuberay.namespace, told)


class RayClusterTrigger(BaseTrigger):
    """Waits until a cluster is ready, or will not be, or the deadline has passed; its event says nothing more.

    `where` are the connection and the namespace, `which` the kind, the name and the address to be.
    """

    def __init__(self, *, where: list[str], which: list[str], deadline: float, poll_interval: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.where = where
        self.which = which
        self.deadline = deadline
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments, as the database keeps them."""
        names = ("where", "which", "deadline", "poll_interval")
        return f"{type(self).__module__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Looks every `poll_interval` seconds, on a thread of its own."""
        from tune_tasks.errors import TuneError

        sign: Sign = "waits"
        try:
            kuberay = await sync_to_async(KubeRay)(*self.where)
            while sign == "waits" and time.time() < self.deadline:
                await asyncio.sleep(self.poll_interval)
                sign = (await asyncio.to_thread(look, kuberay, *self.which)).sign
        except TuneError:
            sign = "refused"  # the task looks again, and raises it where a person sees it
        yield TriggerEvent({"sign": sign})  # type: ignore[no-untyped-call]  # as above


def look(kuberay: KubeRay, kind: str, name: str, address: str) -> Standing:
    """How a cluster stands; ready is one whose Jobs API answers, and its address is told.

    A Kubernetes or a head that does not answer now is waited for. Raises `ConfigError` where either does not let us in.
    """
    from tune_tasks.errors import Unavailable
    from tune_tasks.execution.jobs import Jobs

    try:
        stands = standing(kuberay.get(kind, name))
        if stands.sign != "ready":
            return stands
        at = address.format(host=stands.told, name=name, namespace=kuberay.namespace)
        Jobs(at).version()
        return Standing("ready", at)
    except Unavailable as error:
        return Standing("waits", str(error))


def _check_ours(found: Mapping[str, Any] | None, name: str) -> None:
    """Refuses a resource that tune_tasks did not make for this run: it may hold another's work."""
    from tune_tasks.errors import ConfigError

    if found is not None and (found["metadata"].get("labels") or {}).get(LABEL) != name:
        raise ConfigError(
            f"there is a {found['kind']} {name} in {found['metadata']['namespace']} without the label {LABEL}={name}: "
            "somebody else made it, and it stays; delete it, or name the task otherwise"
        )


def _uid(found: Mapping[str, Any] | None) -> str | None:
    return None if found is None else str(found["metadata"]["uid"])
