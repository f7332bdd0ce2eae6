"""What Airflow asks of a provider when it looks for them.

This module must not import Airflow, Ray or the engine: every Airflow process calls it at its start.
"""

from __future__ import annotations

from typing import Any

_INTEGRATION = "tune_tasks"
_DECORATORS = (
    "tune_search",
    "tune_sample",
    "tune_launch_trials",
    "tune_evaluate_and_prune",
    "tune_promote_best",
)
_RAY_JOBS = {
    "connection-type": "ray_jobs",
    "hook-class-name": "tune_tasks_airflow.hooks.RayJobsHook",
    "hook-name": "Ray cluster (tune_tasks)",
    "ui-field-behaviour": {
        "hidden-fields": ["login", "schema"],
        "relabeling": {"host": "Dashboard", "password": "Token"},
        "placeholders": {"host": "http://head", "port": "8265", "password": "where the cluster asks for one"},
    },
    "conn-fields": {
        "verify": {
            "label": "Certificate",
            "description": "true, false, or the path of the certificates that the dashboard's own is checked against",
            "schema": {"type": ["string", "null"], "default": "true"},
        },
    },
}
"""The connection to a Ray cluster; its form needs no package of its own."""
_CONFIG = {
    "description": "Whose studies a DAG may carry on, and the pages of studies in Airflow's UI.",
    "options": {
        "deployment": {
            "description": "What this Airflow is called where several use one store. A study belongs to the DAG that "
            "began it, as <deployment>/<dag_id>.",
            "version_added": "0.1.0",
            "type": "string",
            "example": "airflow-eu",
            "default": "airflow",
        },
        "stores": {
            "description": "The stores whose studies may be shown, as URLs or folders with commas between them, for "
            "who may read the XCom of a DAG that names one. Nothing is shown from anywhere else.",
            "version_added": "0.1.0",
            "type": "string",
            "example": "s3://bucket/studies,/srv/studies",
            "default": "",
        },
        "store_conn_id": {
            "description": "The connection whose credentials open these stores; without it, those that the API server "
            "has in its environment.",
            "version_added": "0.1.0",
            "type": "string",
            "example": "aws_default",
            "default": "",
        },
    },
}
_LINKS = ("StudyLink", "RayJobLink", "MLflowLink")

_OPERATORS = ("operators", "launch", "rounds", "scheduled", "approvals", "clusters", "kuberay", "local")
_TRIGGERS = ("triggers", "kuberay")


def get_provider_info() -> dict[str, Any]:
    """Describe this provider in the terms of Airflow's schema for providers."""
    return {
        "package-name": "tune-tasks-airflow",
        "name": _INTEGRATION,
        "description": "Hyperparameter tuning as four tasks on a Ray cluster.",
        "integrations": [{"integration-name": _INTEGRATION, "tags": ["machine learning"]}],
        "connection-types": [_RAY_JOBS],
        "hooks": [{"integration-name": _INTEGRATION, "python-modules": ["tune_tasks_airflow.hooks"]}],
        "triggers": [
            {"integration-name": _INTEGRATION, "python-modules": [f"tune_tasks_airflow.{name}" for name in _TRIGGERS]}
        ],
        "notifications": ["tune_tasks_airflow.notifications.StudyNotifier"],
        "config": {"tune_tasks": _CONFIG},
        "extra-links": [f"tune_tasks_airflow.links.{name}" for name in _LINKS],
        "task-decorators": [
            {"name": name, "class-name": f"tune_tasks_airflow.decorators.{name}"} for name in _DECORATORS
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [f"tune_tasks_airflow.{name}" for name in _OPERATORS],
            }
        ],
    }
