"""Where the champion goes: what a target is, what it is given, and what it answers.

`step` takes the champion under the alias to the target that the spec names; `serve` and `folder` are the targets that
come with the engine, and an entry point of the group `tune_tasks.targets` names one of the user's own: a class with
the options as pydantic fields and the methods below. This page must not import any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tune_tasks.delivery import Canary
from tune_tasks.events import CheckpointRef, Value
from tune_tasks.store import Objects, fetch, open_objects

GROUP = "tune_tasks.targets"
"""The entry points that name targets."""

Predict = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Model:
    """A version of a model, and all that is needed to load it on another machine."""

    name: str
    """of the endpoint or the folder: the model's, in letters that a URL has"""
    version: str
    path: str
    """URL of the folder that the promotion published; its files are below data/"""
    digest: str
    """SHA-256 of the folder's manifest, which has the files'"""
    loader: str | None = None
    """module:name of what turns the files into something with predict"""
    code: Mapping[str, bytes] = field(default_factory=dict)
    """the loader's own files, by relative path"""
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    """what processes on a cluster need, as Ray has it"""

    @property
    def place(self) -> tuple[Objects, CheckpointRef]:
        """The published folder, as the store has it."""
        folder, _, key = self.path.rpartition("/")
        return open_objects(folder), CheckpointRef(key=key, digest=self.digest, size=0)

    def fetch(self, target: Path) -> Path:
        """Copies the files to a folder that is not there yet, every byte checked; raises `CorruptLog`."""
        objects, reference = self.place
        return fetch(objects, reference, target)


class Standing(Value):
    """What a target has under a name: the version that gets the requests, and the digest of its files.

    `settled` is false where a change was cut off, or the options are others by now: the next `deploy` has work to do.
    """

    version: str | None
    digest: str | None
    settled: bool
    url: str


class Outcome(Value):
    """What became of a version at a target: whether it took over, and why, in figures."""

    took: bool
    reason: str
    url: str
    requests: int = 0
    errors: int = 0
    latency: float | None = None


class CheckFailed(Exception):
    """A version does not do what it must: it does not get the requests. The message says in what."""


@dataclass(frozen=True, slots=True)
class Checks:
    """What a new version has to show before it gets all requests. `example` gives an input for predict."""

    example: Callable[[], Any] | None = None
    check: Callable[[Predict], Any] | None = None
    canary: Canary | None = None

    def ask(self, predict: Predict) -> None:
        """Asks a version for a prediction, and the user's check what it says of it. Raises `CheckFailed`."""
        if self.example is not None:
            with _blamed("predict, asked for promotion.example,"):
                predict(self.example())
        if self.check is not None:
            with _blamed("deploy.canary.check"):
                self.check(predict)


class Target(Protocol):
    """Where models go. What it does it can do again: after a kill at any instruction, the same call ends the same.

    Raises `ConfigError` for what only an edit mends (no permission, a port that is taken), and `Unavailable` for what
    a retry may; whatever it raises, the version that was there before still gets the requests.
    """

    def deploy(self, model: Model, checks: Checks) -> Outcome:
        """Brings a version to its name, and takes the one before away; or leaves that one, where a check fails."""
        ...

    def undeploy(self, name: str) -> None:
        """Takes away what is under a name; nothing there is fine."""
        ...

    def standing(self, name: str) -> Standing | None:
        """Says what is under a name, and changes nothing; None where nothing is."""
        ...


def short(error: BaseException) -> str:
    """An error in one line, without the traceback that Ray writes into it."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"


@contextmanager
def _blamed(what: str) -> Iterator[None]:
    try:
        yield
    except CheckFailed:
        raise
    except Exception as error:
        raise CheckFailed(f"{what} raised {short(error)}") from error
