"""A study as a user holds it: created or opened from a spec or a URL, read-only but for the four steps.

This module must not decide anything about tuning, and must not run a trial.
"""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tune_tasks import plugins, retention
from tune_tasks.decide import Policy
from tune_tasks.errors import ConfigError, Unavailable, Unreachable
from tune_tasks.events import Amended, Claimed, Created, Event, Opened
from tune_tasks.spec import StudySpec, differences, load_spec, resolve, section_of
from tune_tasks.store import Objects, checkpoints, open_objects
from tune_tasks.store.log import StudyLog
from tune_tasks.store.names import has_credentials
from tune_tasks.store.places import study_log, study_objects
from tune_tasks.store.probe import probe
from tune_tasks.study import StudyState, Trial

if TYPE_CHECKING:
    import pandas as pd

E = TypeVar("E", bound=Event)

AMENDABLE = frozenset(
    {"budget", "resources", "retry", "checkpoints", "execution", "environment"}
    | {"promotion", "final", "deploy", "retrain", "tracking"}
)


SEARCH = frozenset({"space", "sampler", "scheduler"})
"""The sections by which configurations are chosen and judged, which only an extension may change."""


class Study:
    """A handle on the study at one URL. What it shows is what the log said when it was last refreshed."""

    def __init__(
        self, objects: Objects, spec: StudySpec | None = None, *, store: str | None = None, private: bool = False
    ) -> None:
        """`store` is the URL that has the study; `private`: with credentials in it, which no worker elsewhere has."""
        self.objects, self.private = objects, private
        self.store = store or objects.url.rpartition("/")[0]
        self.log = StudyLog(objects)
        self._spec = spec
        self.clock: Callable[[], float] | None = None
        self.keep(self.log.load())

    def refresh(self) -> StudyState:
        """Reads what was committed since, and returns the state."""
        if self.log.head != self._head:
            return self.keep(self.log.load())
        self.distrust()  # where the store fails in the middle, the state holds a part of what was read
        self.log.catch_up(self.state)
        return self.keep(self.state)

    def distrust(self) -> None:
        """Makes the next refresh read the log afresh: the state may hold what never was committed."""
        self._head = -1

    def keep(self, state: StudyState) -> StudyState:
        """Takes over a state that is as of the log's position; for the steps."""
        self.state, self._head = state, self.log.head
        return state

    def now(self) -> float:
        """Seconds since the epoch, by `clock` where someone has set one, such as a simulation."""
        return (self.clock or time.time)()

    @property
    def url(self) -> str:
        """Where the study lives, without credentials."""
        return self.objects.url

    @property
    def spec(self) -> StudySpec:
        """The spec as the log has it."""
        return self.state.spec

    @property
    def trials(self) -> list[Trial]:
        """Every trial, by number."""
        return list(self.state.trials)

    @property
    def best(self) -> Trial | None:
        """The trial with the best value so far; None before there is one."""
        return self.state.best

    def objective(self) -> Any:
        """What a worker needs to find the objective: the Python object where there is one, else its import string.

        None for a command, which is in the spec.
        """
        return self._spec.target if self._spec is not None and self._spec.target else self.spec.objective

    def loaders(self) -> dict[str, Any]:
        """What loads each input: the Python object where there is one, else its import string."""
        return (self._spec or self.spec).loaders

    @property
    def folder(self) -> str | None:
        """The folder from which the objective is imported first."""
        own = self._spec.folder if self._spec is not None else None
        known = str(own) if own else self.state.folder
        return known if known and Path(known).is_dir() else None

    def policy(self) -> Policy:
        """The sampler and the scheduler that the spec names."""
        return Policy(plugins.sampler(self.spec), plugins.scheduler(self.spec))

    def to_frame(self) -> pd.DataFrame:
        """One row a trial: number, state, value, budget, attempts, reason, and a column for each parameter."""
        import pandas as pd  # heavy, and only wanted here

        rows = [
            {
                "trial": trial.number,
                "state": trial.state,
                "value": trial.value,
                "budget": trial.budget,
                "attempts": trial.attempts,
                "why": trial.why,
                **{f"params.{name}": value for name, value in trial.params.items()},
            }
            for trial in self.state.trials
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return f"<Study {self.url} trials={len(self.state.trials)} done={self.state.done}>"


def open_study(
    source: StudySpec | Mapping[str, Any] | str | Path | Study,
    *,
    amend: bool = False,
    parent: str | None = None,
    pipeline: str | None = None,
) -> Study:
    """Opens the study of a spec, and creates it where it does not exist; or opens the one at a URL.

    `source` is a spec, a mapping, the path of a YAML or JSON file, or the URL of an existing study. A spec must be
    the one that the study was created with; with `amend`, its budget, resources, retry, checkpoints, execution,
    environment and promotion may differ, which is recorded. `parent` is, for a study that is created, the URL of the
    one that it goes on from. `pipeline` names who carries the study on: the first one that does so is recorded, and
    another one is refused. Without a name a study is opened by anyone.
    Raises `ConfigError`, `StudyNotFound`, `Unavailable`.
    """
    if isinstance(source, Study):
        return _claimed(source, pipeline)
    if isinstance(source, Mapping) or (not isinstance(source, StudySpec) and is_spec_file(source)):
        source = load_spec(source)
    if not isinstance(source, StudySpec):
        objects = study_objects(source)
        study_log(objects)
        private = has_credentials(str(source))
        store = str(source).rstrip("/").rpartition("/")[0] if private else None
        return _claimed(Study(objects, store=store, private=private), pipeline)
    objects = open_objects(study_url(source))
    log = StudyLog(objects)
    try:
        if not log.exists():
            _check(source)
            _create(objects, log, source, parent)
    except Unavailable as error:
        raise Unreachable(f"store: {error}; check the URL in the spec, and the store's address and keys") from error
    store = study_url(source).rpartition("/")[0]
    study = Study(objects, source, store=store, private=has_credentials(source.store))
    _claimed(study, pipeline)
    _same(study, source, amend=amend)
    return study


def check_pipeline(what: str, held: str | None, pipeline: str | None) -> None:
    """Raises `ConfigError` where `what` is carried on by a pipeline, and `pipeline` names another one."""
    if held is not None and pipeline is not None and held != pipeline:
        raise ConfigError(
            f"{what} is carried on by the pipeline {held!r}, and this is {pipeline!r}; give the study another name, "
            f"or, where it shall be shared or the pipeline was renamed, say pipeline={held!r}"
        )


def find_study(url: str) -> Study | None:
    """The study at a URL; None where there is none."""
    objects = open_objects(url)
    return Study(objects) if StudyLog(objects).exists() else None


def derive(study: Study, changes: Mapping[str, Any]) -> StudySpec:
    """A spec as that of a study but for `changes`, for a study beside it."""
    source = study._spec or study.spec  # noqa: SLF001  # its Python objects, which the log does not know
    return source.changed({**study.spec.record(), **changes, "store": study.store}, study.folder)


def study_url(spec: StudySpec) -> str:
    """Where the study of a spec lives: <store>/<name>."""
    store = spec.store.rstrip("/")
    return f"{store}/{spec.name}" if "://" in store else str(Path(store).expanduser().resolve() / spec.name)


def is_spec_file(source: str | Path) -> bool:
    """Tells a spec file from the URL of a study, by its ending."""
    return Path(source).suffix in {".yaml", ".yml", ".json"} and "://" not in str(source)


def _check(spec: StudySpec) -> None:
    """Finds every mistake that can be found before anything is created."""
    plugins.sampler(spec)
    plugins.scheduler(spec)
    plugins.trackers(spec)
    if spec.deploy is not None:
        plugins.target(spec.deploy)
    if spec.command is None and spec.environment.image is None:  # an image holds its own
        spec.resolve_objective()
    named = {
        **{f"inputs.{name}": loader for name, loader in spec.loaders.items()},
        "resources.function": spec.resources.function,
        "execution.notice": spec.execution.notice if ":" in spec.execution.notice else None,
        "promotion.loader": spec.promotion.loader,
        "promotion.example": spec.promotion.example,
        "promotion.evaluate": spec.promotion.evaluate,
        **{f"promotion.gates.{number}": gate for number, gate in enumerate(spec.promotion.gates)},
        "final.objective": spec.final.objective if spec.final else None,
        "deploy.canary.check": spec.deploy.canary.check if spec.deploy and spec.deploy.canary else None,
    }
    for path, target in named.items():
        if isinstance(target, str):
            resolve(target, path, spec.folder)


def _create(objects: Objects, log: StudyLog, spec: StudySpec, parent: str | None) -> None:
    if not spec.unsafe_single_writer:
        probe(objects)
    log.create(
        Created(
            study=uuid.uuid4().hex,
            spec=spec.record(),
            folder=str(spec.folder) if spec.folder else None,
            code=_code(spec.folder) if spec.folder else None,
            parent=parent,
            time=time.time(),
        )
    )


def _code(folder: Path) -> str | None:
    """The version of the code in a folder, as git tells it: a commit, with -dirty where files were changed since.

    None where there is no git, or no commit.
    """
    try:
        told = [
            subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10)  # noqa: S603, S607  # the user's own git
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "--", "."))
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    commit, changed = (done.stdout.strip() for done in told)
    return f"{commit}-dirty" if changed else commit


def _claimed(study: Study, pipeline: str | None) -> Study:
    """The study, as that of `pipeline`, unless it has another one."""
    if pipeline is not None and study.state.pipeline is None:
        claim = Claimed(pipeline=pipeline, time=study.now())
        append(study, lambda state: None if state.pipeline else claim)
    check_pipeline(f"study: {study.url}", study.state.pipeline, pipeline)
    return study


def _same(study: Study, spec: StudySpec, *, amend: bool) -> None:
    new = spec.record()
    while found := differences(study.spec.record(), new):
        frozen = [line for line in found if section_of(line) not in AMENDABLE]
        if frozen or not amend:
            lines = "\n".join(f"  {line}" for line in (frozen or found))
            remedy = "Give the study another name, or the spec that it was created with"
            if not frozen:
                remedy += "; --amend (amend=True) accepts these changes"
            elif {section_of(line) for line in frozen} <= SEARCH:
                remedy += "; `tune-tasks extend` (tt.extend) gives a study a wider space, or another sampler"
            raise ConfigError(f"spec: differs from the one that {study.url} was created with:\n{lines}\n{remedy}.")
        event = Amended(spec=new, changes=tuple(found), time=time.time())
        if study.log.commit([event], role="step", epoch=0):
            study.state.apply(event)
            study.keep(study.state)
            return
        study.refresh()


def append(study: Study, make: Callable[[StudyState], E | None]) -> E | None:
    """Commits the event that `make` derives from the newest state, and returns it; None where there is none."""
    while (event := make(study.refresh())) is not None:
        if study.log.commit([event], role="step", epoch=0):
            study.state.apply(event)
            study.keep(study.state)
            _keep_short(study)
            return event
    return None


def commit(study: Study, make: Callable[[StudyState], Sequence[Event]]) -> None:
    """Commits, at once, the events that `make` derives from the newest state; nothing where there are none.

    Where a driver is taken over by one of them, they are the driver's that takes over.
    """
    while events := make(study.refresh()):
        epoch = next((event.epoch for event in events if isinstance(event, Opened)), 0)
        if study.log.commit(events, role="driver" if epoch else "step", epoch=epoch):
            for event in events:
                study.state.apply(event)
            study.keep(study.state)
            _keep_short(study)
            return


def record(study: Study, key: str, make: Callable[[StudyState], Event]) -> dict[str, Any]:
    """Commits the event that `make` derives from the newest state, unless the key has its result already."""
    append(study, lambda state: None if key in state.steps else make(state))
    return study.state.steps[key]


def tidy(study: Study) -> None:
    """Discards the checkpoints that nothing needs any more: first in the log, then in the store."""
    event = append(study, lambda state: retention.discard(state, time=study.now()))
    if event is not None:
        checkpoints.remove(study.objects, event.keys)


def _keep_short(study: Study) -> None:
    """Sees to it that what is read when the study is opened next stays little."""
    if study.log.snapshot_due:
        study.log.snapshot(study.state)
        study.log.settle()


def owner() -> str:
    """Names this process for a person who reads the log."""
    return f"{os.uname().nodename}:{os.getpid()}"
