"""Runs attempts at trials in this process, one after another, and says what comes of each. Every runner uses it.

Whatever an objective does, short of ending the process, becomes one `Over`. This module must not know how messages
travel, and must not decide whether a failed trial is tried again.
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from tune_tasks import session
from tune_tasks.errors import ConfigError, TuneError, Unavailable
from tune_tasks.execution import Began, Message, Over, Row, Saved, TrialTask, losses
from tune_tasks.execution.children import Children
from tune_tasks.execution.command import CommandError, CommandObjective
from tune_tasks.execution.output import Output, Upload
from tune_tasks.execution.publishing import Publisher
from tune_tasks.execution.scratch import new_folder
from tune_tasks.session import CheckpointError, Context, MetricError, Session, TrialStopped, activate
from tune_tasks.spec import StudySpec, resolve
from tune_tasks.store import Objects, checkpoints, open_objects

logger = logging.getLogger(__name__)

_ERROR_CHARACTERS = 16_000
_LINE_CHARACTERS = 2_000


class NotShipped(TuneError):
    """The objective cannot be loaded where trials run."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What a worker must know of a study, by value: it travels to other machines, so it holds no secret.

    The objective is a function, a class, an import string, or a pickle: that is loaded where the trial runs, so that
    what cannot be loaded there fails the trial with its traceback.
    """

    study: str
    url: str
    metric: str
    objective: Any
    folder: str | None
    max_budget: int | None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    final: bool = False

    @classmethod
    def of(cls, url: str, spec: StudySpec, objective: Any, folder: str | None, max_budget: int | None) -> Workload:
        """Takes from a spec what workers need; `objective` is a function, a class, or an import string.

        A command in the spec takes its place.
        """
        if spec.command is not None:
            objective = CommandObjective(spec.command, spec.metric, folder)
        limit = max_budget if max_budget is not None else spec.scheduler.options.get("max_budget")
        final = spec.final is not None and spec.final.of is not None
        return cls(spec.name, url, spec.metric, objective, folder, limit, data=spec.data, final=final)

    def load(self) -> Callable[[dict[str, Any]], Any]:
        """Imports the objective, and constructs it where it is a class. Raises `NotShipped` where it is not here.

        The inputs of the study are arguments of the class, or else of each call.
        """
        target = self.objective
        try:
            if isinstance(target, bytes):
                target = pickle.loads(target)  # noqa: S301  # from the driver; see the runner that made it
            if isinstance(target, str):
                target = resolve(target, "objective", self.folder)
        except Exception as error:
            cause = error.__cause__ or error
            what = repr(target) if isinstance(target, str) else "it"
            raise NotShipped(f"{what} cannot be loaded on {_here()}: {type(cause).__name__}: {cause}") from error
        if isinstance(target, type):
            target = target(**self.inputs)
            if not callable(target):
                raise ConfigError(f"objective: class {type(target).__name__} has no __call__(self, config)")
        elif self.inputs:
            target = partial(target, **self.inputs)
        return target  # type: ignore[no-any-return]  # checked where the spec was read, and by the call


class Attempt:
    """One attempt at a trial, while it runs: what its session needs."""

    def __init__(self, bench: Workbench, task: TrialTask) -> None:
        self.task, self._bench = task, bench
        self._root: Path | None = None
        self._saved = False
        self._failure: CheckpointError | None = None
        load = bench.workload
        self.context = Context(
            load.study,
            task.trial,
            task.attempt,
            task.config,
            bench.worker,
            load.max_budget,
            self._folder,
            task.budget,
            lambda: self.session.preempted,
            load.data,
            load.final,
        )
        self.session = Session(self, load.metric, task.budget)

    def row(self, step: int, time: float, metrics: dict[str, float]) -> None:
        """Passes a report on."""
        self._bench.emit(Row(self.task.trial, self.task.attempt, step, time, metrics))

    def save(self, step: int, path: Path) -> None:
        """Has a checkpoint published; it is `Saved` once it lies in the store."""
        self._saved = True
        try:
            self._bench.publisher.save(path, lambda copy: self._publish(step, copy))
        except OSError as error:
            raise CheckpointError(f"the checkpoint of step {step} could not be copied: {error}") from error
        self._raise_failure()

    def restore(self) -> tuple[int, Path] | None:
        """Fetches the checkpoint that the task names."""
        if self.task.checkpoint is None:
            return None
        step, reference = self.task.checkpoint
        try:
            return step, checkpoints.fetch(self._bench.objects, reference, self._scratch() / "checkpoint")
        except Exception as error:
            raise CheckpointError(f"the checkpoint of step {step} could not be read: {error}") from error

    def settle(self) -> None:
        """Waits for its checkpoints. Raises `CheckpointError` where one did not reach the store."""
        if self._saved:
            self._bench.publisher.settle()
            self._raise_failure()

    def close(self) -> None:
        """Removes its scratch folder."""
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)

    def _publish(self, step: int, copy: Path) -> None:
        trial, attempt = self.task.trial, self.task.attempt
        try:
            reference = checkpoints.publish(self._bench.objects, copy, f"ckpt/{trial:06d}/{attempt}/{step}")
        except Exception as error:  # noqa: BLE001  # on the publisher's thread; the next report raises it
            self._failure = CheckpointError(f"the checkpoint of step {step} could not be published: {error}")
            self._failure.__cause__ = error
        else:
            self._bench.emit(Saved(trial, attempt, step, reference, time.time()))

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _folder(self) -> Path:
        folder = self._scratch() / "folder"
        folder.mkdir(exist_ok=True)
        return folder

    def _scratch(self) -> Path:
        if self._root is None:
            self._root = new_folder("attempt")
        return self._root


class Workbench:
    """Runs attempts in this process on one objective, which is loaded, and constructed if it is a class, once."""

    def __init__(
        self,
        workload: Workload,
        worker: str,
        emit: Callable[[Message], None],
        publisher: Publisher,
        output: Callable[[Upload], Output],
        *,
        interruptible: bool = False,
        objects: Objects | None = None,
    ) -> None:
        self.workload, self.worker, self.emit = workload, worker, emit
        self.publisher, self.output, self._interruptible = publisher, output(self._upload), interruptible
        self._objective: Callable[[dict[str, Any]], Any] | None = None
        self._objects = objects
        self.children: Children | None = None
        """Set where this process is a worker's own, so that what trials leave behind may be ended."""
        self.missing: Callable[[], str | None] = lambda: None
        """Asked after a failure for a node of the trial's gang that has gone: then that is why."""

    @property
    def objects(self) -> Objects:
        """The store, opened from its URL and this machine's environment when it is first needed."""
        if self._objects is None:
            self._objects = open_objects(self.workload.url)
        return self._objects

    def _upload(self, key: str, file: Path, *, finished: bool) -> None:
        def job() -> None:
            try:
                self.objects.upload(file, key)
            except Exception as error:  # noqa: BLE001  # a log that cannot be kept must not fail a trial
                logger.warning("output could not be stored", extra={"key": key, "error": str(error)})
            if finished:
                file.unlink(missing_ok=True)

        self.publisher.put(job, urgent=finished)

    def run(self, attempt: Attempt) -> None:
        """Runs an attempt to its end. Raises nothing that an objective raises, but `KeyboardInterrupt` if so made."""
        task = attempt.task
        step = task.checkpoint[0] if task.checkpoint else 0
        self.emit(Began(task.trial, task.attempt, step, self.worker, time.time()))
        self.output.begin(task.trial, task.attempt)
        activate(attempt.session)
        try:
            outcome, error, kind = self._outcome(attempt)
        finally:
            activate(None)
            self._end_children()
            self.output.end()
            attempt.close()
        node = self.missing() if outcome == "failed" else None
        if node is not None:
            outcome, error = "lost", losses.torn(node, error)
        self.emit(Over(task.trial, task.attempt, outcome, error, kind, time.time(), node or ""))

    def _end_children(self) -> None:
        ended = self.children.end() if self.children is not None else []
        if ended:
            line = f"ended what this attempt left running: {', '.join(ended)}\n"
            with suppress(OSError):
                os.write(2, line.encode(errors="replace"))  # an objective may have replaced sys.stderr

    def _outcome(self, attempt: Attempt) -> tuple[str, str | None, str | None]:
        """The end of an attempt: its outcome, and for a broken one the error's text and the name of its class."""
        result: tuple[str, str | None, str | None]
        try:
            result = self._call(attempt), None, None
        except BaseException as error:  # SystemExit is the trial's end, not the worker's
            if self._interruptible and isinstance(error, KeyboardInterrupt):
                raise
            result = _broken(error)
        attempt.session.error = None  # its traceback would keep everything alive that the objective had at hand
        try:
            attempt.settle()
        except CheckpointError as error:
            return result if result[1] is not None else _broken(error)
        return result

    def _call(self, attempt: Attempt) -> str:
        mine, task = attempt.session, attempt.task
        if task.budget is not None and task.checkpoint is not None and task.checkpoint[0] >= task.budget:
            return "reached"  # it was killed after its last report, and must not run a step more than others
        try:
            if self._objective is None:
                self._objective = self.workload.load()
                if self.children is not None:
                    self.children.keep()  # a class may have started helpers for all its trials
            outcome = mine.finish(self._objective(attempt.task.config))
        except BaseException as error:
            if mine.ended is None or (self._interruptible and isinstance(error, KeyboardInterrupt)):
                raise
            if not isinstance(error, TrialStopped) and error is not mine.error:
                traceback.print_exc()  # it ended as it was told; what its clean-up raised is for its log alone
            outcome = mine.ended
        if mine.error is not None:
            raise mine.error
        return outcome


def _here() -> str:
    """Names this worker for a person."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _broken(error: BaseException) -> tuple[str, str, str]:
    """How an error ended an attempt. A store that gave no answer is not the trial's fault, as a lost node is not."""
    lost = isinstance(error, CheckpointError) and isinstance(error.__cause__, Unavailable)
    text = describe(error)
    if isinstance(error, NotShipped):  # it is shown to a person as an error of the spec: the point of it comes first
        text = f"{error}\n{text}"
    return "lost" if lost else "failed", text, type(error).__name__


def describe(error: BaseException) -> str:
    """The traceback from the objective's frames on, bounded in size; for a bad report the message and where it was."""
    if isinstance(error, CommandError):
        return _bounded(str(error))
    trace = _skip_own(error.__traceback__)
    if isinstance(error, MetricError):
        frames = [frame for frame in traceback.extract_tb(trace) if not _is_own(frame.filename)]
        where = f'\n  File "{frames[-1].filename}", line {frames[-1].lineno}, in {frames[-1].name}' if frames else ""
        return _bounded(f"{error}{where}")
    try:
        text = "".join(traceback.format_exception(type(error), error, trace))
    except Exception:  # noqa: BLE001  # an exception may be broken in every way
        text = f"{type(error).__name__}, whose text cannot be shown"
    return _bounded(text)


def _bounded(text: str) -> str:
    """Cuts long lines, then the middle: the frames are at the beginning, the message is at the end.

    Halves of characters, which no UTF-8 can write, become escapes: the log could not hold them.
    """
    text = text.encode(errors="backslashreplace").decode()
    lines = (line if len(line) <= _LINE_CHARACTERS else f"{line[:_LINE_CHARACTERS]}..." for line in text.splitlines())
    short = "\n".join(lines)
    half = _ERROR_CHARACTERS // 2
    if len(short) <= 2 * half:
        return short
    return f"{short[:half]}\n... {len(short) - 2 * half} characters ...\n{short[-half:]}"


def _skip_own(trace: TracebackType | None) -> TracebackType | None:
    """Leaves the frames of this project out that lead to the objective; all of them stay where there are no others."""
    inner = trace
    while inner is not None and _is_own(inner.tb_frame.f_code.co_filename):
        inner = inner.tb_next
    return inner or trace


def _is_own(filename: str) -> bool:
    return filename == session.__file__ or Path(filename).parent == Path(__file__).parent
