"""These tests run where Airflow is installed, with a home of their own for it."""

from __future__ import annotations

from importlib.util import find_spec

import tests.airflow_home  # noqa: F401  # before Airflow is loaded

collect_ignore_glob = [] if find_spec("airflow") else ["test_*.py"]
