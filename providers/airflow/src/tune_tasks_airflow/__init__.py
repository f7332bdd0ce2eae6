"""The four tasks of tune_tasks as Airflow operators.

This module must not import Airflow: Airflow loads it while it looks for providers, before it is set up itself.
"""

from importlib.metadata import PackageNotFoundError, version

OLDEST = (3, 1)
"""Of Airflow."""


def _check() -> None:
    """Raises `ImportError` where an Airflow is installed that is too old; pip may have been told not to look."""
    for name in ("apache-airflow-core", "apache-airflow"):
        try:
            found = version(name)
        except PackageNotFoundError:  # a worker has the task SDK alone
            continue
        if tuple(map(int, found.split(".")[:2])) < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            raise ImportError(f"tune_tasks_airflow needs Airflow {oldest} or newer, and this one is {found}")
        return


_check()
