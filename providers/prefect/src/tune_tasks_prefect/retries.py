"""Which failures of a task are worth another try: the answer is in the error's class, never in its text.

This module must not know what a task does.
"""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from tune_tasks.errors import TuneError, Unavailable


def worth_retrying(task: Any, run: Any, state: Any) -> bool:  # noqa: ARG001  # what Prefect calls it with
    """Says no to every error of the engine but `Unavailable`, and yes to whatever else happens.

    A spec is not mended by waiting, a log is not read better the third time, and a driver that was fenced must not
    take the study back. It is a plain function because Prefect before 3.9 takes a partial or a callable object for
    "never retry".
    """
    error = state.data
    return not isinstance(error, TuneError) or isinstance(error, Unavailable)


AS_THE_STUDY_SAYS: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(10),
    "retry_condition_fn": worth_retrying,
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "result_serializer": "json",
}
"""Options of every task that calls the engine: again after 10, 20 and 40 seconds, and nothing remembered."""
