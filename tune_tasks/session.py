"""What an objective imports: `report`, `get_checkpoint` and `get_context`.

One session is active in a process, in a module global, so that threads which an objective starts may report too. This
module must stay light, as training code loads it: the standard library alone, no Ray and no store.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol

from tune_tasks.errors import ConfigError, TuneError

logger = logging.getLogger(__name__)

_LONGEST_NAME = 1_000
"""Characters of a metric's name."""
_LARGEST_REPORT = 4 << 20
"""Bytes of one report in the log: a segment has to hold it, with what else is committed beside it."""
_UNWEIGHED = 500
"""Metrics that cannot be too much together, however long their names are: most reports are never weighed."""


class MetricError(ValueError):
    """A report is not what it must be: the trial fails, whether its objective catches this or not."""


class MissingMetric(MetricError):
    """A report lacks the study's metric."""


class CheckpointError(TuneError):
    """A checkpoint could not be published to the store, or not be read back from it."""


class TrialStopped(BaseException):
    """The trial shall end here. Not an `Exception`, so that an objective's `except Exception` lets it through."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an objective may know about the attempt that it runs in."""

    study: str
    trial: int
    attempt: int
    config: dict[str, Any]
    worker: str
    _max_budget: int | None = field(repr=False)
    _folder: Callable[[], Path] = field(repr=False)
    budget: int | None = None
    """The steps, of all attempts together, at which this one ends; None where its objective decides."""
    _preempted: Callable[[], bool] = field(repr=False, default=lambda: False)
    data: str | None = None
    """What the study trains on, as its spec says."""
    final: bool = False
    """Whether this is the final training of a winner, on all the data."""

    @property
    def max_budget(self) -> int:
        """The most steps that the study gives any trial. Raises `ConfigError` where its scheduler sets none."""
        if self._max_budget is None:
            raise ConfigError("max_budget: this study sets none; give the scheduler a max_budget")
        return self._max_budget

    @property
    def preempted(self) -> bool:
        """Whether the machine is about to go away: a report with a checkpoint, made soon, saves the work so far."""
        return self._preempted()

    @property
    def folder(self) -> Path:
        """An empty local folder of this attempt's own, made when it is first asked for and removed at the end."""
        return self._folder()


class Attempt(Protocol):
    """What a session needs from whoever runs the attempt."""

    context: Context

    def row(self, step: int, time: float, metrics: dict[str, float]) -> None:
        """Takes one report."""
        ...

    def save(self, step: int, path: Path) -> None:
        """Takes a checkpoint, which may change once this returns. Raises `CheckpointError`, also for an earlier one."""
        ...

    def restore(self) -> tuple[int, Path] | None:
        """Brings the checkpoint to go on from, with its step, to this machine. Raises `CheckpointError`."""
        ...


class Session:
    """Counts and checks the reports of one attempt, and tells its objective when to end."""

    def __init__(self, attempt: Attempt, metric: str, budget: int | None) -> None:
        self._attempt, self._metric, self._budget = attempt, metric, budget
        self._lock = threading.Lock()
        self._names: set[str] = set()
        self._step = 0
        self._reported = False
        self._restored: Path | None = None
        self._asked: Literal["stop", "pause"] | None = None
        self.preempted = False
        self.ended: Literal["reached", "stopped", "carried", "moved", "failed"] | None = None
        self.error: BaseException | None = None

    @property
    def context(self) -> Context:
        """What the objective may know."""
        return self._attempt.context

    def stop(self, *, pause: bool) -> None:
        """Makes the next report the last one; with `pause`, the next one with a checkpoint. Takes no lock."""
        if self._asked != "stop":  # a prune is for good: a pause that comes later does not weaken it
            self._asked = "pause" if pause else "stop"

    def move(self) -> None:
        """Makes the next report with a checkpoint the last one here: the machine goes away. Takes no lock."""
        self.preempted = True

    def report(self, metrics: Mapping[str, Any], checkpoint: str | os.PathLike[str] | None = None) -> None:
        """Takes one report as the next step. Raises `MetricError`, `CheckpointError` and `TrialStopped`."""
        with self._lock:
            if self.ended is None:
                self._take(metrics, checkpoint)
        if self.ended is not None:
            raise TrialStopped(self.ended)

    def finish(self, returned: Any) -> str:
        """Ends the attempt after its objective returned, and gives the outcome.

        A mapping counts as one more report, unless the attempt has ended already: its budget is used up, or it was
        told to stop. Raises `MetricError` for a bad one, and where there was no report at all, unless the objective
        found in its checkpoint that it had nothing left to do.
        """
        with self._lock:
            if self.ended is None and isinstance(returned, Mapping):
                self._take(returned, None)
            elif self.ended is None and not self._reported and self._restored is None:
                self._refuse(MetricError(_nothing(returned, self._metric)))
            return self.ended or "returned"

    def checkpoint(self) -> Path | None:
        """Gives the checkpoint to go on from; reports count on from its step if none was made before."""
        with self._lock:
            if self._restored is None:
                try:
                    restored = self._attempt.restore()
                except CheckpointError as error:  # an objective that catches this must not start over unnoticed
                    self._refuse(error)
                if restored is not None:
                    step, self._restored = restored
                    self._step = self._step if self._reported else step
            return self._restored

    def _take(self, metrics: Mapping[str, Any], checkpoint: str | os.PathLike[str] | None) -> None:
        step = self._step + 1
        try:
            values = self._checked(metrics, step)
            path = None if checkpoint is None else _existing(checkpoint, step)
        except (MetricError, CheckpointError) as error:
            self._refuse(error)
        self._step, self._reported = step, True
        self._attempt.row(step, time.time(), values)
        if path is not None:
            try:
                self._attempt.save(step, path)
            except CheckpointError as error:
                self._refuse(error)
        if self._budget is not None and step >= self._budget:
            self.ended = "reached"
        elif self._asked == "stop":
            self.ended = "stopped"
        elif self._asked == "pause" and path is not None:
            self.ended = "carried"
        elif self.preempted and path is not None:
            self.ended = "moved"

    def _refuse(self, error: Exception) -> NoReturn:
        self.ended, self.error = "failed", error
        raise error

    def _checked(self, metrics: Mapping[str, Any], step: int) -> dict[str, float]:
        """Copies the metrics as finite floats; the common case costs no call for each of them."""
        if not isinstance(metrics, Mapping):
            raise MetricError(f"report {step} is {_short(metrics)}, must be a mapping from metric names to numbers")
        values: dict[str, float] = {}
        known = self._names
        for name, value in metrics.items():
            if type(value) is float and type(name) is str and name in known and math.isfinite(value):
                values[name] = value
            else:
                checked = _name(name, step)
                values[checked] = _number(name, value, step)
                known.add(checked)
        if len(values) > _UNWEIGHED:
            _weigh(values, step)
        if self._metric not in values:
            raise MissingMetric(_missing(self._metric, list(values), step))
        return values


_active: Session | None = None
_told = False


def activate(session: Session | None) -> None:
    """Makes this the session of the process; for those who run attempts, not for an objective."""
    global _active  # noqa: PLW0603  # one session a process is the design; see the top of the module
    _active = session


def report(metrics: Mapping[str, Any], checkpoint: str | os.PathLike[str] | None = None) -> None:
    """Reports the metrics of one step, and with `checkpoint` a folder, or a file, to go on from.

    The metrics map names to finite numbers and hold the study's metric. The checkpoint is copied before this returns,
    so it may be overwritten at once. Ends the trial by an exception when it shall not go on. Outside a trial it does
    nothing, so that a script can be run plainly.
    """
    session = _active
    if session is None:
        _tell_once()
    else:
        session.report(metrics, checkpoint)


def get_checkpoint() -> Path | None:
    """Gives the folder of the checkpoint to go on from; None where the trial begins, and outside a trial.

    The next report then counts as the step after that checkpoint. The folder is a copy that the objective may change.
    """
    session = _active
    return None if session is None else session.checkpoint()


def get_context() -> Context:
    """Tells the objective about its attempt. Raises `TuneError` outside a trial."""
    session = _active
    if session is None:
        raise TuneError(
            "get_context() works only inside a trial; run the objective through tune_tasks.tune(spec), "
            "or `tune-tasks run study.yaml`"
        )
    return session.context


def _tell_once() -> None:
    global _told  # noqa: PLW0603  # one line for a process, however often it reports
    if not _told:
        _told = True
        logger.info("report() does nothing here: no trial is running in this process")


def _name(name: object, step: int) -> str:
    if not isinstance(name, str) or not name:
        raise MetricError(f"report {step}: metric name {_short(name)} is not allowed, must be a text that is not empty")
    if len(name) > _LONGEST_NAME:
        raise MetricError(
            f"report {step}: metric name {_short(name)} has {len(name):,} characters, "
            f"must be at most {_LONGEST_NAME:,}; put long texts into the checkpoint"
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = _short(name)
        raise MetricError(f"report {step}: metric name {shown} is not allowed, must be text that is UTF-8") from None
    return str(name)


def _weigh(values: Mapping[str, float], step: int) -> None:
    """Refuses a report that no segment could hold; a number takes 30 bytes there at the most."""
    import json

    size = sum(30 + len(json.dumps(name)) for name in values)
    if size > _LARGEST_REPORT:
        raise MetricError(
            f"report {step} has {len(values):,} metrics, {size / 2**20:.1f} MiB in all, must be at most "
            f"{_LARGEST_REPORT >> 20} MiB; save what is not for comparing trials into the checkpoint"
        )


def _number(name: object, value: Any, step: int) -> float:
    """Reads anything that is one finite number: bool, int, Decimal, a scalar of numpy, a tensor without dimensions."""
    number = math.nan
    if not isinstance(value, (str, bytes, bytearray)) and getattr(value, "ndim", 0) == 0:
        try:
            number = float(value)
        except Exception:  # whatever __float__ raises, the value is no number
            logger.debug("metric %r cannot be read as a number", name, exc_info=True)
    if not math.isfinite(number):
        raise MetricError(f"report {step}: metric {name!r} is {_short(value)}, must be a finite number")
    return number


def _missing(metric: str, names: list[str], step: int) -> str:
    import difflib

    has = ", ".join(repr(name) for name in sorted(names)[:20]) or "no metrics"
    near = difflib.get_close_matches(metric, names, n=1, cutoff=0.5)
    hint = f". Did you mean {near[0]!r}?" if near else ""
    return f"report {step} has no {metric!r}, the study's metric; it has {has}{hint}"


def _nothing(returned: Any, metric: str) -> str:
    return (
        f"the objective returned {_short(returned)} and reported nothing; "
        f"call tune_tasks.report({{{metric!r}: ...}}), or return such a mapping"
    )


def _existing(checkpoint: str | os.PathLike[str], step: int) -> Path:
    try:
        path = Path(checkpoint).absolute()
    except TypeError:
        shown = _short(checkpoint)
        raise CheckpointError(f"report {step}: checkpoint is {shown}, must be the path of a folder or file") from None
    if not path.exists():
        raise CheckpointError(f"report {step}: checkpoint {str(path)!r} does not exist")
    return path


def _short(value: object) -> str:
    """Shows a value in a message; one without a usable repr by its type, a long one by its beginning."""
    try:
        if isinstance(value, float):
            return str(float(value))
        text = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001  # the message must not fail where the value is broken
        text = f"a {type(value).__name__}"
    return text if len(text) <= 100 else text[:97] + "..."
