"""The loop over the four tasks, for a script or a shell. It must not do anything that the tasks do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tune_tasks.spec import StudySpec
from tune_tasks.steps import MAIN, evaluate_and_prune, launch_trials, runner_here, sample
from tune_tasks.studies import Study, open_study
from tune_tasks.study import StudyState
from tune_tasks.tracking.beside import tracked


def tune(
    source: StudySpec | Mapping[str, Any] | str | Path | Study,
    *,
    run: str = MAIN,
    on_change: Callable[[StudyState], None] = lambda _: None,
) -> Study:
    """Samples, launches and evaluates until the study is done, on workers that stay warm, and returns the study.

    Called again after a kill or an interruption, it goes on where the log ends.
    """
    study = open_study(source)
    if study.state.done:
        return study
    with tracked(study) as shown:
        runner = runner_here(study)
        try:
            done = False
            while not done:
                batch = sample(study, run=run)
                launch_trials(study, batch, runner=runner, on_change=on_change)
                done = evaluate_and_prune(study, batch).done
        finally:
            if runner is not None:
                runner.close()
        shown.finish()
    return study
