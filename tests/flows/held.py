"""Studies whose trials wait at their third step for a test to let them go on: nothing depends on who is fast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tune_tasks as tt
from tests.studies import events, write_study
from tune_tasks.attend import job_name, stop
from tune_tasks.events import Opened, Started
from tune_tasks.execution.jobs import Jobs
from tune_tasks.studies import find_study, open_study

SLEEP = 'time.sleep(float(os.environ.get("STEP_SECONDS", "0")))'
WAIT = 'while step == 2 and not Path(os.environ["GATE"]).exists(): time.sleep(0.05)'


@dataclass(frozen=True)
class Held:
    """A study of two trials with four steps each, which wait after the second one."""

    spec: Path
    dashboard: str | None = None

    @property
    def url(self) -> str:
        """Of the study."""
        return str(self.spec.parent / "studies" / "small")

    @property
    def gate(self) -> Path:
        """What the trials wait for."""
        return self.spec.parent / "gate"

    def go_on(self) -> None:
        """Lets the trials go on, also those of a later attempt."""
        self.gate.touch()

    def is_held(self) -> bool:
        """Whether a trial waits."""
        study = find_study(self.url)
        return study is not None and any(trial.budget == 2 for trial in study.trials)

    def job(self, attempt: int = 1) -> str:
        """The submission id of the study's job."""
        return job_name(open_study(self.url).state, attempt)

    def condition(self, attempt: int = 1) -> str:
        """What Ray says of that job."""
        return Jobs(self.dashboard).look(self.job(attempt)).condition

    def drivers(self) -> list[str]:
        """Who drove the study, in order."""
        return [event.owner for event in events(self.url) if isinstance(event, Opened)]

    def starts(self) -> list[tuple[int, int]]:
        """The step from which each attempt at each trial began."""
        return sorted((event.trial, event.step) for event in events(self.url) if isinstance(event, Started))

    def states(self) -> list[str]:
        """Of the trials."""
        return [trial.state for trial in open_study(self.url).trials]


@contextmanager
def held(folder: Path, dashboard: str | None = None, **changes: Any) -> Iterator[Held]:
    """Writes a study, which runs as a job where there is a dashboard; lets it go on, and stops its job, at the end."""
    execution = {"runner": "job", "address": dashboard} if dashboard else {"runner": "inline"}
    gate = {"GATE": str(folder / "gate")}
    spec = write_study(
        folder,
        scheduler={"name": "none", "max_budget": 4},
        budget={"trials": 2, "concurrency": 2},
        execution={**execution, "group_time": 1e-9},
        environment={"variables": gate},
        **changes,
    )
    source = (folder / "objective.py").read_text()
    assert SLEEP in source
    (folder / "objective.py").write_text(source.replace(SLEEP, WAIT))
    study = Held(spec, dashboard)
    try:
        yield study
    finally:
        study.go_on()
        if dashboard:
            with suppress(tt.StudyNotFound):
                stop(open_study(study.url))
