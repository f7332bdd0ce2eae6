"""The errors that tune_tasks raises, each named by the caller's next move.

A failed trial is data, not an exception; nothing here describes one. This module must not import anything of the
project, so that every other module may use it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TuneError(Exception):
    """Something went wrong that no retry and no edit described below will mend."""

    exit_code = 1


class ConfigError(TuneError, ValueError):
    """Mend the spec (or the call): the same input will fail again."""

    exit_code = 2


class StudyNotFound(TuneError, LookupError):
    """There is no study at that URL: check the URL, or create the study."""

    exit_code = 3


class Fenced(TuneError):
    """Someone took this study over: stop for good, and let the newer driver work."""

    exit_code = 4


class CorruptLog(TuneError):
    """The log cannot be read as it was written: a person must look; nothing was skipped or repaired."""

    exit_code = 5


class Unavailable(TuneError):
    """The store or the cluster did not answer in time: retry later, the study is unchanged."""

    exit_code = 6


class Unreachable(Unavailable):
    """The store that a spec names did not answer when the study was looked for: check its URL first, then retry.

    An `Unavailable`, so that an orchestrator tries again; for a shell it is bad input, like other mistakes in a spec.
    """

    exit_code = 2


class NothingToPromote(TuneError):
    """No trial ended with a usable value: look at the failures before another run."""

    exit_code = 7


def invalid(path: str, value: object, allowed: str, choices: Iterable[str] = ()) -> ConfigError:
    """Builds the one message that every refused input gets: where, what, what is allowed, and the nearest name."""
    message = f"{path}: {_shown(value)} is not allowed; {allowed}"
    near = difflib.get_close_matches(str(value), list(choices), n=1, cutoff=0.5)
    return ConfigError(f"{message}. Did you mean {near[0]!r}?" if near else message)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."
