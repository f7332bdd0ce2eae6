"""The RayClusters and RayJobs of KubeRay: what is asked for, how one stands, and the requests to Kubernetes.

The requests go through the hook of Airflow's Kubernetes provider, an extra of this one. This module must not wait, and
must not delete what it has not looked at before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from tune_tasks.errors import TuneError

Kind: TypeAlias = Literal["RayCluster", "RayJob"]
Sign: TypeAlias = Literal["ready", "waits", "gone", "refused"]

GROUP, VERSION = "ray.io", "v1"
PLURALS: Mapping[str, str] = {"RayCluster": "rayclusters", "RayJob": "rayjobs"}
LABEL = "tune-tasks/cluster"
"""Tells what this module made, and for which DAG run: its value is the name."""
PORT = 8265
"""Of the dashboard, in the service of a head."""
_MISSING, _CONFLICT = 404, 409
_REFUSALS, _INVALID = frozenset({401, 403}), frozenset({400, 413, 422})


class Standing(NamedTuple):
    """How a cluster stands; `told` is the host and port of its dashboard where it is ready, else why it is not."""

    sign: Sign
    told: str


def resource(
    manifest: Any, name: str, *, namespace: str | None, expires: int | None, notes: Mapping[str, str]
) -> dict[str, Any]:
    """What is created for a manifest of a RayCluster.

    With `expires`, in seconds, that is a RayJob which holds such a cluster. It waits for a job that nobody submits, so
    that it ends by its deadline alone, and then KubeRay deletes the cluster: also where no Airflow is left to do it.
    `notes` are annotations. Raises `ConfigError` for what is no RayCluster.
    """
    _check(manifest, namespace)
    told = manifest.get("metadata") or {}
    metadata = {
        "name": name,
        "labels": {**(told.get("labels") or {}), "app.kubernetes.io/managed-by": "tune-tasks", LABEL: name},
        "annotations": {**(told.get("annotations") or {}), **notes},
    }
    spec = manifest["spec"]
    if expires is not None:
        spec = {
            "submissionMode": "InteractiveMode",
            "jobId": name,
            "activeDeadlineSeconds": expires,
            "shutdownAfterJobFinishes": True,
            "rayClusterSpec": spec,
        }
    kind: Kind = "RayCluster" if expires is None else "RayJob"
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": metadata, "spec": spec}


def standing(found: Mapping[str, Any] | None) -> Standing:
    """How the cluster of a resource stands, by what KubeRay writes into it."""
    if found is None:
        return Standing("gone", "it is not there")
    if found["metadata"].get("deletionTimestamp"):
        return Standing("gone", "it is being deleted")
    status = found.get("status") or {}
    return _of_job(status) if found["kind"] == "RayJob" else _of_cluster(status, found["metadata"]["namespace"])


def _of_cluster(status: Mapping[str, Any], namespace: str) -> Standing:
    state, service = status.get("state"), (status.get("head") or {}).get("serviceName")
    if state == "ready" and service:
        return Standing("ready", f"{service}.{namespace}.svc:{PORT}")
    if state == "failed":
        return Standing("gone", f"it has failed: {status.get('reason')}")
    return Standing("waits", _why(status))


def _why(status: Mapping[str, Any]) -> str:
    """Why a cluster is not ready yet."""
    failing = [
        f"{each['type']} is {each['status']}: {each.get('message') or each.get('reason')}"
        for each in status.get("conditions") or ()
        if (each["status"] == "True") == (each["type"] == "ReplicaFailure")
    ]
    told = [*failing, *([status["reason"]] if status.get("reason") else [])]
    state = status.get("state") or "not told; does the KubeRay operator run?"
    return "; ".join(told) or f"its state is {state}"


def _of_job(status: Mapping[str, Any]) -> Standing:
    phase, told = status.get("jobDeploymentStatus"), status.get("message") or status.get("reason") or "no reason given"
    match phase:
        case "Waiting" | "Running" if status.get("dashboardURL"):
            return Standing("ready", str(status["dashboardURL"]))
        case "ValidationFailed":
            return Standing("refused", told)
        case "Failed" | "Complete":
            return Standing("gone", f"it has ended: {told}")
        case _:
            return Standing("waits", f"the RayJob is {phase or 'new'}; {_why(status.get('rayClusterStatus') or {})}")


class KubeRay:
    """The RayClusters and RayJobs of one namespace, as one connection sees them."""

    def __init__(self, kubernetes_conn_id: str, namespace: str | None = None) -> None:
        """`namespace`: by default that of the connection. Raises `ConfigError` without the provider or connection."""
        from tune_tasks.errors import ConfigError

        try:
            from airflow.providers.cncf.kubernetes.hooks.kubernetes import (  # type: ignore[import-not-found,unused-ignore]  # an extra
                KubernetesHook,
            )
        except ImportError as error:
            raise ConfigError(
                "a cluster on Kubernetes needs apache-airflow-providers-cncf-kubernetes; get it with: "
                f"pip install 'tune-tasks-airflow[kubernetes]' ({error})"
            ) from error
        hook = KubernetesHook(kubernetes_conn_id)
        try:
            self.namespace = namespace or hook.get_namespace() or "default"
            self._objects = hook.custom_object_client
        except Exception as error:
            raise ConfigError(
                f"kubernetes_conn_id: {kubernetes_conn_id!r} leads to no Kubernetes ({error}); make it with: airflow "
                f"connections add {kubernetes_conn_id} --conn-type kubernetes --conn-extra '{{\"in_cluster\": true}}'"
            ) from error
        self._conn_id = kubernetes_conn_id

    def create(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Creates a resource, and gives it; None where there is one of that name.

        Raises `ConfigError` for what Kubernetes does not take, a field that it does not know among it: without asking
        for that it would leave the field out. Raises `Unavailable` where it does not answer.
        """
        make = self._objects.create_namespaced_custom_object
        made: dict[str, Any] | None = self._ask(
            "create", body["kind"], make, _CONFLICT, body=body, field_validation="Strict"
        )
        return made

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """A resource; None where there is none of that name. Raises as `create` does."""
        found: dict[str, Any] | None = self._ask(
            "get", kind, self._objects.get_namespaced_custom_object, _MISSING, name=name
        )
        return found

    def delete(self, found: Mapping[str, Any]) -> None:
        """Deletes what was found, its pods first, and never what has been made under its name since. Raises as above.

        It returns when the deletion has begun.
        """
        options = {"preconditions": {"uid": found["metadata"]["uid"]}, "propagationPolicy": "Foreground"}
        end = self._objects.delete_namespaced_custom_object
        self._ask("delete", found["kind"], end, _MISSING, _CONFLICT, name=found["metadata"]["name"], body=options)

    def _ask(self, verb: str, kind: str, call: Callable[..., Any], *nothing: int, **options: Any) -> Any:
        """One request; None where the answer is one of `nothing`."""
        from kubernetes.client import ApiException  # type: ignore[import-not-found,import-untyped,unused-ignore]  # no types
        from urllib3.exceptions import HTTPError

        from tune_tasks.errors import Unavailable

        where = {"group": GROUP, "version": VERSION, "namespace": self.namespace, "plural": PLURALS[kind]}
        try:
            return call(**where, **options)
        except ApiException as error:
            if error.status in nothing:
                return None
            raise self._refusal(verb, kind, error) from error
        except (HTTPError, OSError) as error:
            raise Unavailable(f"kubernetes_conn_id: {self._conn_id!r}: no Kubernetes answers: {error}") from error

    def _refusal(self, verb: str, kind: str, error: Any) -> TuneError:
        """What an answer of Kubernetes says to whoever has to mend it."""
        from tune_tasks.errors import ConfigError, Unavailable

        what = f"{PLURALS[kind]}.{GROUP} in the namespace {self.namespace!r}"
        told = f"{error.status} {_message(error.body) or error.reason}"
        if error.status in _REFUSALS:
            return ConfigError(
                f"kubernetes_conn_id: {self._conn_id!r} may not {verb} {what}: {told}; give it the right"
            )
        if error.status == _MISSING:
            return ConfigError(f"there are no {what}: {told}; install the KubeRay operator, or make the namespace")
        if error.status in _INVALID:
            return ConfigError(f"manifest: Kubernetes refuses it: {told}")
        return Unavailable(f"Kubernetes cannot {verb} {what} now: {told}")


def _check(manifest: Any, namespace: str | None) -> None:
    """Finds what is no RayCluster before anything is asked for; Kubernetes checks the rest."""
    from tune_tasks.errors import invalid

    if not isinstance(manifest, Mapping):
        raise invalid("manifest", manifest, "it must be a RayCluster as a mapping, YAML, or the path of a YAML file")
    version = f"{GROUP}/{VERSION}"
    if (manifest.get("apiVersion"), manifest.get("kind")) != (version, "RayCluster"):
        raise invalid("manifest", manifest, f"it must have apiVersion: {version} and kind: RayCluster")
    if not isinstance(manifest.get("spec"), Mapping) or not isinstance(manifest["spec"].get("headGroupSpec"), Mapping):
        raise invalid("manifest.spec", manifest.get("spec"), "it must have a headGroupSpec")
    own = (manifest.get("metadata") or {}).get("namespace")
    if own not in {None, namespace}:
        raise invalid("manifest.metadata.namespace", own, "name it by the option namespace alone, which both tasks see")


def _message(body: Any) -> str:
    """What an error of Kubernetes says."""
    try:
        return str(json.loads(body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(body or "").strip()
