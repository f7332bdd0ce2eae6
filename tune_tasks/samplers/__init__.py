"""Who is tried next: the protocol of a sampler. One strategy a file.

A sampler is a frozen pydantic model whose fields are its options, so that a spec can be checked and documented
without running it. It must be a pure function of the history: no clock, no I/O, no randomness but `generator`.
A package adds its own under the entry point group `tune_tasks.samplers`.
"""

from __future__ import annotations

from random import Random
from typing import Protocol, runtime_checkable

from tune_tasks.events import Proposal
from tune_tasks.study import StudyState

GROUP = "tune_tasks.samplers"


@runtime_checkable
class Sampler(Protocol):
    """Proposes configurations."""

    def propose(self, history: StudyState, count: int) -> list[Proposal]:
        """Returns up to `count` new configurations, numbered on from `len(history.trials)`.

        Fewer than `count` means that there is nothing more to try. The same history and count give the same proposals
        in any process; trials that still wait or run are in the history, and none is proposed twice in one call.
        """
        ...


def generator(seed: int, number: int) -> Random:
    """The random generator of one trial: the same for the same seed and trial number, on every machine."""
    return Random(f"{seed}/{number}")  # noqa: S311  # reproducible on purpose, not a secret
