"""What Airflow asks of a provider when it looks for them.

This module must not import Airflow, Ray or the engine: every Airflow process calls it at its start.
"""

from __future__ import annotations

from typing import Any

_INTEGRATION = "tune_tasks"


def get_provider_info() -> dict[str, Any]:
    """Describe this provider in the terms of Airflow's schema for providers."""
    return {
        "package-name": "tune-tasks-airflow",
        "name": _INTEGRATION,
        "description": "Hyperparameter tuning as four tasks on a Ray cluster.",
        "integrations": [{"integration-name": _INTEGRATION, "tags": ["machine learning"]}],
        "operators": [{"integration-name": _INTEGRATION, "python-modules": ["tune_tasks_airflow.operators"]}],
    }
