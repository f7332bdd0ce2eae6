"""Credentials that one thread of this process opens stores with, in place of what the environment has.

For an orchestrator whose tasks use several stores from the threads of one process: a variable of the environment would
be the others' too. Who starts a process, or a worker on a cluster, hands them on. This module must not show a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_NONE: Mapping[str, str] = MappingProxyType({})
_given: ContextVar[Mapping[str, str]] = ContextVar("tune_tasks.store.credentials", default=_NONE)


@contextmanager
def using(variables: Mapping[str, str]) -> Iterator[None]:
    """Opens stores with these variables of a bucket's or a database's environment, as long as the block runs.

    They hold in this thread, and where its context is copied to. None are left of a block around this one.
    """
    token = _given.set(MappingProxyType(dict(variables)))
    try:
        yield
    finally:
        _given.reset(token)


def given() -> Mapping[str, str]:
    """The variables of the block around this call; empty where there is none."""
    return _given.get()
