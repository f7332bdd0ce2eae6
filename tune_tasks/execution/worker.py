"""The warm worker: a process that runs attempts one after another and buffers what it says of them.

Ray calls its methods, each kind on a thread of its own, while the trial runs on another: so a stop reaches a trial
that is in the middle of a step. It must not call back to the driver: messages wait until they are fetched.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from tune_tasks.execution import Message, Over, Returned, TrialTask, children, notices
from tune_tasks.execution.attempt import Attempt, Workbench, Workload, describe
from tune_tasks.execution.gang import Gang
from tune_tasks.execution.output import Capture
from tune_tasks.execution.publishing import Background

GROUP_SECONDS = 0.02
"""How long a message waits for others to travel with it."""
BEAT_SECONDS = 2.0
"""How long `fetch` waits at most: an empty answer says that the worker lives."""
_MESSAGES = 1_500
"""Most messages in one answer: Ray carries up to 100 kB inside its reply, more than that through shared memory."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_BUFFERED = 100_000
"""Messages that wait for the driver before a report waits too: an endless loop of reports must not fill the memory."""


class Ready(NamedTuple):
    """The first thing that a worker says: it is up, on this node, by Ray's id, with a gang on these others."""

    node: str
    gang: tuple[str, ...] = ()


class Noticed(NamedTuple):
    """The worker's machine is about to go away, by `deadline`, in seconds since the epoch, if one was said.

    It has told its trial, and begins no other.
    """

    why: str
    deadline: float | None


class Swollen(NamedTuple):
    """The worker holds more memory than a trial may leave behind, in bytes; it begins no other trial."""

    before: int
    after: int


class Torn(NamedTuple):
    """A node of the worker's gang, by Ray's id, has gone; the worker begins no other trial."""

    node: str


Word: TypeAlias = Message | Ready | Noticed | Swollen | Torn
"""What a worker says: of its tasks, which is for the driver, and of itself, which is for the runner alone."""


class Terms(NamedTuple):
    """How a worker lives: its name, the bytes that its trials may leave behind, and whom it asks about its machine."""

    name: str
    max_leak: int | None
    notice: str


class Worker:
    """Runs the tasks that `order` brings, and says through `fetch` what became of them."""

    def __init__(self, terms: Terms, workload: Workload) -> None:
        """The inputs in `workload` are references to objects in Ray's store."""
        self._terms, self._workload = terms, workload
        self._lock = threading.RLock()
        self._ordered = threading.Condition(self._lock)
        self._said = threading.Condition(self._lock)
        self._fetched = threading.Condition(self._lock)
        self._tasks: deque[TrialTask] = deque()
        self._gang = Gang.here()
        self._messages: list[Word] = [Ready(_node(), self._gang.nodes)]
        self._since = 0.0
        self._low = 0
        self._urgent = True
        self._retired = False
        self._first: int | None = None
        self._waiting = False
        self._current: Attempt | None = None
        self._bench: Workbench | None = None
        self._broken: str | None = None
        self._heed_signals()
        # Not the main thread: Ray keeps that one for itself in an actor whose calls run beside each other. As in Ray
        # Tune, an objective can therefore not install signal handlers.
        threading.Thread(target=self._work, name="trial", daemon=True).start()

    def order(self, tasks: bytes, low: int) -> None:
        """Takes pickled tasks. `fetch` answers at once when no more than `low` of them are left."""
        with self._lock:
            self._tasks.extend(pickle.loads(tasks))  # noqa: S301  # from the driver, as is everything here
            self._low = low
            self._ordered.notify()
            if self._retired:
                self._give_back(list(self._tasks))

    def stop(self, trial: int, attempt: int, pause: bool) -> None:  # noqa: FBT001  # Ray passes it on by position
        """Asks the attempt that runs to end at a report; one that has not begun is given back."""
        with self._lock:
            if self._current is not None and self._current.task[:2] == (trial, attempt):
                self._current.session.stop(pause=pause)
            self._give_back([task for task in self._tasks if task[:2] == (trial, attempt)])

    def recall(self) -> None:
        """Gives every task back that has not begun."""
        with self._lock:
            self._give_back(list(self._tasks))

    def move(self, why: str, deadline: float | None) -> None:
        """Has the trial that runs move elsewhere at its next checkpoint; takes no more tasks."""
        with self._lock:
            if self._current is not None:
                self._current.session.move()
            self._retire(Noticed(why, deadline))

    def fetch(self) -> bytes:
        """Waits for messages, a little longer for more of them, and gives them in order, pickled.

        Raises `RuntimeError` where this process cannot run any trial.
        """
        with self._lock:
            self._waiting = True
            self._said.wait_for(lambda: self._messages or self._broken, BEAT_SECONDS)
            while self._messages and not self._urgent and len(self._messages) < _MESSAGES:
                left = self._since + GROUP_SECONDS - time.monotonic()
                if left <= 0:
                    break
                self._said.wait(left)
            self._waiting = False
            batch, self._messages = self._messages[:_MESSAGES], self._messages[_MESSAGES:]
            self._urgent = self._urgent and bool(self._messages)
            self._fetched.notify_all()
        if self._broken is not None:
            raise RuntimeError(self._broken)
        if self._bench is not None:
            self._bench.output.look()
        return pickle.dumps(batch, protocol=5)

    def leave(self) -> None:
        """Waits for what is still on its way to the store."""
        if self._bench is not None:
            self._bench.publisher.settle()
            self._bench.output.close()

    def _missing(self) -> str | None:
        """A node of the gang that has gone; then this worker is of no use any more."""
        node = self._gang.missing()
        if node is not None:
            with self._lock:
                self._retire(Torn(node))
        return node

    def _retire(self, why: Noticed | Swollen | Torn) -> None:
        """Begins no more trials."""
        if self._retired:
            return
        self._retired = self._urgent = True
        self._give_back(list(self._tasks))
        self._emit(why)
        self._said.notify()

    def _heed_signals(self) -> None:
        """Takes SIGTERM for a notice: on the main thread, where Ray makes its actors, and not in what forks."""
        own = os.getpid()

        def terminated(number: int, _: object) -> None:
            if os.getpid() != own:  # a child of the trial must end, as it would without us
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
                return
            threading.Thread(target=self.move, args=("SIGTERM", None), daemon=True).start()  # this one may hold locks

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminated)

    def _give_back(self, tasks: list[TrialTask]) -> None:
        for task in tasks:
            self._tasks.remove(task)
            self._emit(Returned(task.trial, task.attempt))

    def _work(self) -> None:
        try:
            label, url = f"{socket.gethostname()}:{os.getpid()}", self._workload.url
            workload = replace(self._workload, inputs=_fetched(self._workload.inputs))
            self._bench = Workbench(
                workload, label, self._emit, Background(), lambda upload: Capture(url, self._terms.name, upload)
            )
            self._bench.missing = self._missing
            self._watch(notices.choose(self._terms.notice, self._workload.folder))
            children.adopt()
            self._bench.children = children.Children()
            while True:
                self._run_next(self._bench)
        except BaseException as error:  # noqa: BLE001  # without this thread, everyone would wait for ever
            with self._lock:
                self._broken = describe(error)
                self._said.notify()

    def _watch(self, notice: notices.Notice | None) -> None:
        """Has someone ask for news of this machine while trials run."""
        if notice is not None:
            notices.Watch(notice, lambda why: self.move(why, None))

    def _run_next(self, bench: Workbench) -> None:
        """Waits for a task and runs it, in a frame of its own: nothing of the trial is kept until the next one."""
        with self._lock:
            self._ordered.wait_for(lambda: self._tasks)
            attempt = self._current = Attempt(bench, self._tasks.popleft())
        bench.run(attempt)
        with self._lock:
            self._current = None
        self._weigh()

    def _weigh(self) -> None:
        """Compares the memory of this process with what it was after the first trial."""
        first, limit = self._first, self._terms.max_leak
        if first is None:
            self._first = _resident()
        elif limit is not None and _resident() - first > limit:
            gc.collect()  # what lies in cycles is no leak
            if (now := _resident()) - first > limit:
                with self._lock:
                    self._retire(Swollen(first, now))

    def _emit(self, message: Word) -> None:
        """Buffers a message; wakes `fetch` only where it has to do something about it."""
        with self._lock:
            while len(self._messages) >= _BUFFERED:
                self._fetched.wait()
            if not self._messages:
                self._since = time.monotonic()
            self._messages.append(message)
            urgent = type(message) is Over and len(self._tasks) <= self._low
            if self._waiting and (len(self._messages) == 1 or (urgent and not self._urgent)):
                self._said.notify()
            self._urgent = self._urgent or urgent


def _node() -> str:
    import ray

    return ray.get_runtime_context().get_node_id()


def _fetched(references: Mapping[str, Any]) -> dict[str, Any]:
    """The values of objects in Ray's store: arrays are not copied, and cannot be written to."""
    import ray

    return dict(zip(references, ray.get(list(references.values())), strict=True)) if references else {}


def _resident() -> int:
    """Bytes of this process in memory; a few microseconds."""
    with open("/proc/self/statm", "rb", buffering=0) as file:  # noqa: PTH123  # half the time of Path
        return int(file.read().split()[1]) * _PAGE
