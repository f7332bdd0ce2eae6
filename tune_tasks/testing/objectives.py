"""Small objectives that do one thing each, for tests of runners; their configuration says how much of it.

They are in a module of their own so that a worker imports them without pytest.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tune_tasks as tt


def count(config: dict[str, Any]) -> None:
    """Reports `reports` losses, falling from 1."""
    for step in range(config.get("reports", 3)):
        tt.report({"loss": 1 / (step + 1)})


def count_on(config: dict[str, Any]) -> None:
    """Reports up to `reports` with a checkpoint each time, or each `every` steps, on from the one it is given."""
    step = 0
    checkpoint = tt.get_checkpoint()
    if checkpoint is not None:
        step = int((checkpoint / "step.txt").read_text())
    folder = tt.get_context().folder
    while step < config.get("reports", 3):
        step += 1
        (folder / "step.txt").write_text(str(step))
        tt.report({"loss": float(step)}, checkpoint=folder if step % config.get("every", 1) == 0 else None)
        (folder / "step.txt").write_text("overwritten")


def save_and_fail(config: dict[str, Any]) -> None:
    """Reports a checkpoint and raises."""
    count_on(config)
    raise ArithmeticError("after the checkpoint")


def start_over(config: dict[str, Any]) -> None:
    """Reports without looking at its checkpoint."""
    count(config)


def give_back(config: dict[str, Any]) -> Any:
    """Reports `reports` times and returns `returned`."""
    count({"reports": config.get("reports", 0)})
    return config.get("returned")


def go_on(config: dict[str, Any]) -> None:
    """Reports until it is stopped, with a checkpoint at every `every`-th report; marks its beginning with a file."""
    folder = tt.get_context().folder
    (folder / "file").touch()
    Path(config["mark"]).touch()
    step = 0
    while True:
        step += 1
        tt.report({"loss": 1.0}, checkpoint=folder if config.get("every") and step % config["every"] == 0 else None)
        time.sleep(0.002)


def hold(config: dict[str, Any]) -> dict[str, float]:
    """Holds its worker until the file `until` is there."""
    if "mark" in config:
        Path(config["mark"]).write_text(str(os.getpid()))
    while "until" in config and not Path(config["until"]).exists():
        time.sleep(0.002)
    return {"loss": 1.0}


class Unpicklable(Exception):
    """Can be raised, but neither pickled nor copied."""

    def __init__(self, number: int, *, lock: Any) -> None:
        super().__init__(f"error number {number}")
        self.lock = lock

    def __reduce__(self) -> str:
        raise TypeError("this exception does not pickle")


class Unprintable(Exception):
    """Fails when its text is asked for."""

    def __str__(self) -> str:
        raise RuntimeError("this exception has no text")


def fail(config: dict[str, Any]) -> None:
    """Ends in the way that `how` names."""
    match config["how"]:
        case "error":
            raise ArithmeticError("the sky fell")
        case "chain":
            try:
                config["first"]
            except KeyError as error:
                raise ArithmeticError("second") from error
        case "huge":
            raise ArithmeticError("begin" + "x" * 50_000_000 + "end")
        case "unpicklable":
            raise Unpicklable(7, lock=threading.Lock())
        case "unprintable":
            raise Unprintable
        case "exit":
            sys.exit(3)
        case "deep":
            fail(config)


def swallow(config: dict[str, Any]) -> None:
    """Reports `metrics`, ignores every error, and goes on."""
    for metrics in (config["metrics"], {"loss": 1.0}):
        try:
            tt.report(metrics)
        except Exception as error:  # noqa: BLE001  # ignoring it is the point
            print("ignored", error)


def stop_uncleanly(config: dict[str, Any]) -> None:
    """Raises while it is being stopped."""
    try:
        count(config)
    finally:
        raise ArithmeticError("in the clean-up")


def report_from_thread(config: dict[str, Any]) -> None:
    """Reports from a thread of its own."""
    thread = threading.Thread(target=count, args=(config,))
    thread.start()
    thread.join()


def loud(config: dict[str, Any]) -> dict[str, float]:
    """Prints, in the ways that `how` names."""
    for how in config.get("how", ()):
        if how == "python":
            print("from python", config["mark"])
            print("to stderr", config["mark"], file=sys.stderr)
        elif how == "process":
            subprocess.run(
                ["/bin/sh", "-c", f"echo from a process {config['mark']}; echo and its stderr >&2"], check=True
            )
        elif how == "close":
            sys.stdout.close()
            sys.stdout = sys.stderr = None  # as badly behaved code may leave it
        elif how == "c":
            ctypes.CDLL(None).printf(b"from C %s\n", config["mark"].encode())
    return {"loss": 1.0}


def tell_context(config: dict[str, Any]) -> dict[str, float]:
    """Checks what the context says, and writes where its folder was."""
    context = tt.get_context()
    again = tt.get_context().folder
    assert context.folder == again
    assert context.folder.is_dir()
    assert not any(context.folder.iterdir())
    (context.folder / "file").touch()
    Path(config["where"]).write_text(
        "\n".join([context.study, str(context.trial), str(context.attempt), context.worker, str(context.folder)])
    )
    assert context.config == config
    assert context.preempted is False
    return {"loss": float(context.max_budget)}


def save_nothing(config: dict[str, Any]) -> None:
    """Reports a checkpoint that does not exist, and ignores the error."""
    try:
        tt.report({"loss": 1.0}, checkpoint=config["path"])
    except tt.TuneError as error:
        print(error)


def die(config: dict[str, Any]) -> None:
    """Reports twice, the second time without a checkpoint, and ends its process; after a resume, it does not."""
    checkpoint = tt.get_checkpoint()
    if checkpoint is None:
        folder = tt.get_context().folder
        (folder / "file").touch()
        print("last words", flush=True)
        tt.report({"loss": 1.0}, checkpoint=folder)
        Path(config["mark"]).touch()
        while not Path(config["until"]).exists():  # until the test has seen the checkpoint
            time.sleep(0.002)
        if config["how"] == "exit":
            os._exit(1)
        os.kill(os.getpid(), signal.SIGKILL)
    tt.report({"loss": 2.0})


def die_at_once(config: dict[str, Any]) -> None:
    """Ends its process before anything was heard of the trial."""
    os._exit(1)


def leave_child(config: dict[str, Any]) -> dict[str, float]:
    """Starts a process that outlives the trial, and writes its number."""
    child = subprocess.Popen(["/bin/sleep", "600"])
    Path(config["mark"]).write_text(f"{child.pid} {os.getpid()}")
    return {"loss": 1.0}


class Costly:
    """A class objective: reports one identity for each time that it was constructed."""

    def __init__(self) -> None:
        self.identity = float(uuid.uuid4().int % 2**52)

    def __call__(self, config: dict[str, Any]) -> dict[str, float]:
        """Reports who it is, and in which process."""
        return {"loss": self.identity, "pid": float(os.getpid())}


def load_factor() -> float:
    """An input; its own process and moment, so that two loads differ."""
    return float(uuid.uuid4().int % 2**52)


def scale(config: dict[str, Any], factor: float) -> dict[str, float]:
    """Reports its input."""
    return {"loss": factor}


class Scaled:
    """A class objective that is constructed with an input."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, config: dict[str, Any]) -> dict[str, float]:
        """Reports the input."""
        return {"loss": self.factor}


class Broken:
    """A class objective whose constructor raises."""

    def __init__(self) -> None:
        raise ArithmeticError("no data today")

    def __call__(self, config: dict[str, Any]) -> None:
        """Is never reached."""


class NotCallable:
    """A class that cannot be an objective."""


def stepwise(config: dict[str, Any]) -> Iterator[int]:
    """Is a generator by mistake."""
    tt.report({"loss": 1.0})
    yield 1
