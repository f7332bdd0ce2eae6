"""What Airflow asks of a provider when it looks for them.

This module must not import Airflow, Ray or the engine: every Airflow process calls it at its start.
"""

from __future__ import annotations

from typing import Any

_INTEGRATION = "tune_tasks"
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


def get_provider_info() -> dict[str, Any]:
    """Describe this provider in the terms of Airflow's schema for providers."""
    return {
        "package-name": "tune-tasks-airflow",
        "name": _INTEGRATION,
        "description": "Hyperparameter tuning as four tasks on a Ray cluster.",
        "integrations": [{"integration-name": _INTEGRATION, "tags": ["machine learning"]}],
        "connection-types": [_RAY_JOBS],
        "hooks": [{"integration-name": _INTEGRATION, "python-modules": ["tune_tasks_airflow.hooks"]}],
        "triggers": [{"integration-name": _INTEGRATION, "python-modules": ["tune_tasks_airflow.triggers"]}],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["tune_tasks_airflow.operators", "tune_tasks_airflow.launch"],
            }
        ],
    }
