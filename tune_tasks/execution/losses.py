"""What is said of a worker that is gone, for whoever reads the log: why, and where it was."""

from __future__ import annotations

_ERROR_CHARACTERS = 2_000
_MEMORY = "Ray ended it, as its node ran out of memory"


def lost(node: str, reason: str) -> str:
    """The text of an attempt that was lost."""
    return f"the worker was lost{f' on node {node[:12]}' if node else ''}: {reason}"[:_ERROR_CHARACTERS]


def why(error: Exception, notice: str | None) -> str:
    """Why Ray's error came; `notice` says why its node was expected to go away, if it was."""
    from ray.exceptions import OutOfMemoryError

    name = type(error).__name__
    if isinstance(error, OutOfMemoryError) or "memory pressure" in str(error):
        return f"{_MEMORY}; let fewer trials run at once, or ask for more resources.memory: {name}: {error}"
    if getattr(error, "preempted", False):
        return f"its node was preempted: {name}: {error}"
    return f"{f'its node was about to go away ({notice}): ' if notice else ''}{name}: {error}"


def judged(outcome: str, error: str | None, before: str | None) -> str:
    """The outcome of an attempt by what it ended with, and the one before it: `failed` where memory ran out twice.

    Where a node is full, Ray ends whoever came last: the first time that may be a neighbour's doing.
    """
    twice = _MEMORY in (error or "") and _MEMORY in (before or "")
    return "failed" if outcome == "lost" and twice else outcome


def unborn(error: Exception) -> str:
    """What may be behind workers that end before they are up, for the end of a sentence that says what Ray told."""
    if "never ran" not in str(error):
        return ""
    return (
        " Does this process ask for a token (RAY_AUTH_MODE) and the cluster does not? Ray answers so then. "
        "A process in which Ray was started before asks for one; use a new process, or one mode everywhere."
    )


def torn(node: str, error: str | None = None) -> str:
    """The text of an attempt whose gang lost a node; `error` is what the objective raised for it, if it did."""
    raised = f"; what the objective raised:\n{error}" if error else " and its objective did not end"
    return f"node {node[:12]} of its gang was lost{raised}"


def silent(seconds: float) -> str:
    """Why a worker is given up that does not answer."""
    return (
        f"it gave no sign of life for {seconds:.0f} s (execution.heartbeat); its node froze, "
        "or its code did not let go of Python's lock"
    )


def unstopped(seconds: float) -> str:
    """The text of an attempt that did not end when it was told to."""
    return f"no report came within {seconds:g} s (execution.stop_grace) of its stop; its worker was replaced"
