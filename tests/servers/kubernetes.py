"""The part of a Kubernetes that keeps the resources of KubeRay: a small HTTP server that a test can make fail.

It keeps what the published API promises: names are taken once, a deletion with the uid of another resource is a
conflict, a deleted resource is there until its finalizers are gone, fields that the definition does not have are
refused where that is asked for. KubeRay's own part is played as its controller does it, by what the resource says.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

NAMESPACE = "tuning"
MAPPING: dict[str, Any] = {"*": str}
"""Any names, each with a text."""
POD = {"metadata": dict, "spec!": {"containers!": list, "*": object}}
HEAD = {"template!": POD, "rayStartParams": MAPPING, "serviceType": str, "enableIngress": bool, "headService": dict}
WORKERS = {
    "groupName!": str,
    "minReplicas!": int,
    "maxReplicas!": int,
    "template!": POD,
    "replicas": int,
    "numOfHosts": int,
    "idleTimeoutSeconds": int,
    "rayStartParams": MAPPING,
    "scaleStrategy": dict,
    "suspend": bool,
}
CLUSTER = {
    "headGroupSpec!": HEAD,
    "workerGroupSpecs": [WORKERS],
    "rayVersion": str,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {"version": str, "idleTimeoutSeconds": int, "upscalingMode": str, "resources": dict},
    "headServiceAnnotations": MAPPING,
    "gcsFaultToleranceOptions": dict,
    "suspend": bool,
    "managedBy": str,
}
JOB = {
    "submissionMode": str,
    "jobId": str,
    "entrypoint": str,
    "activeDeadlineSeconds": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "backoffLimit": int,
    "rayClusterSpec": CLUSTER,
}
"""Fields of the published definitions (ray.io/v1 of KubeRay 1.4 to 1.7) with their types; `!` marks required ones."""
KINDS = {"rayclusters": ("RayCluster", CLUSTER, 53), "rayjobs": ("RayJob", JOB, 47)}


@dataclass
class Kubernetes:
    """What is in it, what was asked of it, and how it is to behave."""

    url: str = ""
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """The method and the kind of every request."""
    created: list[dict[str, Any]] = field(default_factory=list)
    status: str = "ready"
    """What KubeRay makes of new clusters; anything but ready, failed and invalid is a cluster that never is ready."""
    answers: dict[str, int] = field(default_factory=dict)
    """Instead of doing what a method asks for, this status."""
    on_create: Callable[[], None] = lambda: None
    """Called when the resource is there and nobody has been told yet."""
    on_delete: Callable[[], None] = lambda: None
    """Called before a deletion is looked at."""
    lingers: float = 0.0
    """Seconds for which a deleted resource is still there."""
    aged: float = 0.0
    """Seconds by which everything is older than it is."""

    @property
    def connection(self) -> str:
        """The connection of Airflow to it, as JSON."""
        cluster = {"name": "c", "cluster": {"server": self.url}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [cluster],
            "users": [{"name": "u", "user": {"token": "hunter2"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        return json.dumps({"conn_type": "kubernetes", "extra": {"kube_config": config, "namespace": NAMESPACE}})

    @property
    def running(self) -> list[str]:
        """The clusters that cost something, by the name of what holds them."""
        return [name for (_, name), each in self.objects.items() if not self._ended(each)]

    def put(self, plural: str, name: str, **labels: str) -> dict[str, Any]:
        """Puts a resource there that someone else has made."""
        metadata = {"name": name, "namespace": NAMESPACE, "uid": uuid.uuid4().hex, "labels": labels}
        made = {"kind": KINDS[plural][0], "metadata": metadata, "spec": {}, "made": time.time()}
        self.objects[plural, name] = made
        return made

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        """What the API says; None is nothing at all."""
        match = re.fullmatch(r"/apis/ray\.io/v1/namespaces/([^/]+)/(rayclusters|rayjobs)(?:/([^/]+))?", path)
        if match is None or match[1] != NAMESPACE:
            return _error(404, f'namespaces "{match[1]}" not found' if match else "page not found")
        plural, name = match[2], match[3]
        self.asked.append((method, plural))
        if method in self.answers:
            return _error(self.answers[method], "as the test says")
        self._collect()
        match method:
            case "POST":
                return self._create(plural, body, strict=query.get("fieldValidation") == ["Strict"])
            case "GET" if (plural, name) in self.objects:
                return 200, self._told(self.objects[plural, name])
            case "DELETE":
                return self._delete(plural, name, body or {})
        return _error(404, f'{plural}.ray.io "{name}" not found')

    def _create(self, plural: str, body: dict[str, Any], *, strict: bool) -> tuple[int, Any]:
        kind, fields, longest = KINDS[plural]
        name = body["metadata"]["name"]
        wrong = [*_wrong(body["spec"], fields, "spec", strict=strict)]
        if (
            body["apiVersion"] != "ray.io/v1"
            or body["kind"] != kind
            or not re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name)
        ):
            wrong.append("apiVersion, kind or metadata.name: invalid value")
        if len(name) > longest:
            wrong.append(f"metadata.name: no more than {longest} characters")
        if wrong:
            return _error(422, f'{kind}.ray.io "{name}" is invalid: {"; ".join(wrong)}')
        if (plural, name) in self.objects:
            return _error(409, f'{plural}.ray.io "{name}" already exists')
        made = {**body, "metadata": {**body["metadata"], "namespace": NAMESPACE, "uid": uuid.uuid4().hex}}
        self.objects[plural, name] = {**made, "made": time.time()}
        self.created.append(made)
        self.on_create()
        return 201, made

    def _delete(self, plural: str, name: str, options: dict[str, Any]) -> tuple[int, Any]:
        self.on_delete()
        found = self.objects.get((plural, name))
        if found is None:
            return _error(404, f'{plural}.ray.io "{name}" not found')
        uid = options.get("preconditions", {}).get("uid", found["metadata"]["uid"])
        if uid != found["metadata"]["uid"]:
            return _error(409, "the UID in the precondition does not match the UID in record")
        found["metadata"] |= {"deletionTimestamp": "2026-11-22T08:00:00Z", "finalizers": ["foregroundDeletion"]}
        found.setdefault("deleted", time.time())
        found["foreground"] = options.get("propagationPolicy") == "Foreground"  # else its pods end after it
        return 200, self._told(found)

    def _collect(self) -> None:
        now = time.time()
        for key, each in [*self.objects.items()]:
            lingers = self.lingers if each.get("foreground", True) else 0.0
            if "deleted" in each and now >= each["deleted"] + lingers:
                del self.objects[key]

    def _ended(self, found: dict[str, Any]) -> bool:
        """Whether KubeRay has deleted the cluster by itself."""
        limit = found["spec"].get("activeDeadlineSeconds")
        past = limit is not None and time.time() + self.aged > found["made"] + limit
        return past and bool(found["spec"].get("shutdownAfterJobFinishes"))

    def _told(self, found: dict[str, Any]) -> dict[str, Any]:
        shown = {name: value for name, value in found.items() if name not in {"made", "deleted", "foreground"}}
        host, ready = f"{found['metadata']['name']}-head-svc", self.status == "ready"
        if found["kind"] == "RayCluster":
            state = {"state": "ready", "head": {"serviceName": host}} if ready else self._unready()
            return {**shown, "status": state}
        if self._ended(found):
            return {**shown, "status": {"jobDeploymentStatus": "Failed", "message": "passed the activeDeadlineSeconds"}}
        if self.status == "invalid":
            return {**shown, "status": {"jobDeploymentStatus": "ValidationFailed", "message": "the RayJob is invalid"}}
        if ready:
            at = f"{host}.{NAMESPACE}.svc.cluster.local:8265"
            return {**shown, "status": {"jobDeploymentStatus": "Running", "dashboardURL": at}}
        return {**shown, "status": {"jobDeploymentStatus": "Initializing", "rayClusterStatus": self._unready()}}

    def _unready(self) -> dict[str, Any]:
        if self.status == "failed":
            return {"state": "failed", "reason": "no such image"}
        why = {"type": "HeadPodReady", "status": "False", "reason": "ContainersNotReady", "message": "no node has room"}
        return {"conditions": [why]}


@contextmanager
def kubernetes() -> Iterator[Kubernetes]:
    """Runs one on a port of its own for as long as the block lasts."""
    made = Kubernetes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            url = urlparse(self.path)
            try:
                status, said = made.answer(self.command, url.path, parse_qs(url.query), body)
            except ConnectionError:
                self.close_connection = True  # the client is told nothing
                return
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_DELETE = do_GET  # noqa: N815  # the names that http.server looks for

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def published(plural: str) -> dict[str, Any] | None:
    """KubeRay's own definition of a resource as a strict JSON schema; None where KUBERAY_CRDS names no folder of them.

    They are in helm-chart/kuberay-operator/crds of its repository, 2 MB, and no part of this one.
    """
    folder = os.environ.get("KUBERAY_CRDS")
    if not folder:
        return None
    import yaml

    text = (Path(folder) / f"ray.io_{plural}.yaml").read_text(encoding="utf-8")
    versions = yaml.safe_load(text)["spec"]["versions"]
    return _strict(next(each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == "v1"))


def _strict(schema: Any) -> Any:
    """The schema of a structural definition as JSON schema has it, with what it does not name forbidden."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {name: _strict(value) for name, value in schema.items() if name != "format"}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def _wrong(value: Any, fields: Any, path: str, *, strict: bool) -> Iterator[str]:
    """What a definition does not allow, as the API server words it."""
    if isinstance(fields, list):
        for index, each in enumerate(value):
            yield from _wrong(each, fields[0], f"{path}[{index}]", strict=strict)
    elif isinstance(fields, type):
        if not isinstance(value, fields) or (fields is int and isinstance(value, bool)):
            yield f'{path}: Invalid value: "{type(value).__name__}": must be of type {fields.__name__}'
    elif not isinstance(value, dict):
        yield f'{path}: Invalid value: "{type(value).__name__}": must be of type object'
    else:
        known = {name.rstrip("!"): each for name, each in fields.items()}
        yield from (
            f"{path}.{name[:-1]}: Required value" for name in fields if name[-1] == "!" and name[:-1] not in value
        )
        for name, each in value.items():
            if name in known or "*" in known:
                yield from _wrong(each, known.get(name, known.get("*")), f"{path}.{name}", strict=strict)
            elif strict:
                yield f'strict decoding error: unknown field "{path}.{name}"'


def _error(code: int, message: str) -> tuple[int, Any]:
    return code, {"kind": "Status", "status": "Failure", "code": code, "message": message}
