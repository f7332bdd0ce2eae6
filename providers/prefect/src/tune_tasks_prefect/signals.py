"""A SIGTERM in the middle of a trial, as the engine knows an interruption.

Prefect turns the signal into an exception wherever the main thread is. In a trial that runs in the flow's process it
would be taken for a failure of the objective, and the launch would go on with the next trial until it is killed. This
module must not change what Prefect makes of the signal.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.exceptions import TerminationSignal
from prefect.utilities import engine

_NAME = TerminationSignal.__name__


class Ended(TerminationSignal, KeyboardInterrupt):
    """Prefect's signal, at which the engine leaves a trial as at Ctrl-C."""


@contextmanager
def interrupting() -> Iterator[None]:
    """Has Prefect's handler of SIGTERM raise `Ended` for as long as the block lasts.

    The handler itself has to stay in its place: by it Prefect knows that a flow run can be cancelled.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are for the main thread alone
        yield
        return
    names = vars(engine)
    names[_NAME] = Ended
    try:
        yield
    finally:
        names[_NAME] = TerminationSignal
