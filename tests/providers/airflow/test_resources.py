"""What is asked of KubeRay for a manifest, and which manifests are none."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
import yaml
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

from tests.airflow_home import ROOT
from tests.servers.kubernetes import KINDS, published
from tune_tasks.errors import ConfigError
from tune_tasks_airflow.kuberay import StartRayClusterOperator
from tune_tasks_airflow.resources import LABEL, PLURALS, resource, standing

NAME = "tune-d-12345678"
MANIFEST = yaml.safe_load((ROOT / "infra" / "kubernetes" / "raycluster.yaml").read_text())


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ("- 1", r"manifest: \[1\] is not allowed; it must be a RayCluster"),
        ("a: b: c", r"manifest: 'a: b: c' is not allowed; it is no YAML"),
        (
            {"apiVersion": "ray.io/v1", "kind": "RayJob"},
            r"'kind': 'RayJob'.* it must have apiVersion: ray.io/v1 and kind",
        ),
        ("/none/such.yaml", r"manifest: '/none/such.yaml' cannot be read"),
        (
            {"apiVersion": "ray.io/v1", "kind": "RayCluster", "spec": {}},
            r"manifest.spec: \{\} is not .*a headGroupSpec",
        ),
    ],
)
def test_a_manifest_that_is_none_fails_at_once_with_what_it_was_rendered_to(manifest: Any, told: str) -> None:
    with DAG("d", schedule=None):
        start = StartRayClusterOperator(task_id="t", cluster=NAME, manifest=manifest, kubernetes_conn_id="none_such")
    context: Any = {"ti": SimpleNamespace(dag_id="d", run_id="r")}
    with pytest.raises(AirflowFailException, match=told):  # before anyone asks for the connection
        start.execute(context)


def test_the_namespace_is_said_in_one_place() -> None:
    manifest = {**MANIFEST, "metadata": {"namespace": "vision"}}
    with pytest.raises(
        ConfigError, match=r"manifest.metadata.namespace: 'vision' is not allowed; name it by the option"
    ):
        resource(manifest, NAME, namespace="tuning", expires=None, notes={})


def test_what_the_manifest_says_of_itself_is_kept_but_for_its_name() -> None:
    manifest = {**MANIFEST, "metadata": {"name": "mine", "labels": {"team": "vision"}, "annotations": {"a": "b"}}}
    made = resource(manifest, NAME, namespace=None, expires=60, notes={"c": "d"})
    assert made["metadata"]["name"] == NAME
    assert made["metadata"]["labels"] == {"team": "vision", "app.kubernetes.io/managed-by": "tune-tasks", LABEL: NAME}
    assert made["metadata"]["annotations"] == {"a": "b", "c": "d"}
    assert (made["kind"], made["spec"]["rayClusterSpec"]) == ("RayJob", MANIFEST["spec"])


def test_a_cluster_of_which_nothing_is_told_asks_for_the_operator() -> None:
    found = {"kind": "RayCluster", "metadata": {"namespace": "tuning"}}
    assert standing(found) == ("waits", "its state is not told; does the KubeRay operator run?")
    assert standing({**found, "status": {"state": "failed", "reason": "no image"}}) == (
        "gone",
        "it has failed: no image",
    )


def test_the_server_of_the_tests_knows_the_kinds_that_are_sent() -> None:
    assert {kind: plural for plural, (kind, *_) in KINDS.items()} == PLURALS


@pytest.mark.parametrize("kind", PLURALS)
def test_what_is_sent_is_what_kuberay_publishes(kind: str) -> None:
    schema = published(PLURALS[kind])
    if schema is None:
        pytest.skip("KUBERAY_CRDS names no folder with KubeRay's definitions")
    expires = 3600 if kind == "RayJob" else None
    body = resource(deepcopy(MANIFEST), NAME, namespace=None, expires=expires, notes={"tune-tasks/dag-id": "d"})
    body["metadata"].clear()  # the definition leaves it to Kubernetes
    jsonschema.validate(body, schema)
    spec = body["spec"].get("rayClusterSpec", body["spec"])
    spec["headGroupSpec"]["unknown"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, schema)
