"""The process of a study's Ray job: `python -m tune_tasks.job URL --job NAME`, on the cluster.

It takes the batches that launch steps ask for from the log and ends when there is nothing left to do. Its exit code
tells the error's class, for the launch step that waits. This module must not sample or judge: the steps do.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys

from tune_tasks.errors import TuneError
from tune_tasks.execution.serving import JobDriver
from tune_tasks.steps import make_decider, make_runner
from tune_tasks.studies import open_study

logger = logging.getLogger(__name__)

STOPPED = 130
"""Exit code after a stop: the study is whole, and the next launch step goes on with it."""


def main(arguments: list[str] | None = None) -> int:
    """Serves the study until there is nothing left to do, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tune_tasks.job", description=__doc__.partition("\n")[0])
    parser.add_argument("study", metavar="URL")
    parser.add_argument("--job", required=True, help="the submission id, which names this driver in the log")
    options = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s")
    logging.getLogger("tune_tasks").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        serve(options.study, options.job)
    except TuneError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201  # what the launch step looks for
        return error.exit_code
    except KeyboardInterrupt:
        logger.info("stopped; the next launch step goes on with the study")
        return STOPPED
    return 0


def serve(url: str, owner: str) -> None:
    """Drives the study at `url` under the name `owner`."""
    study = open_study(url)
    runner = make_runner(study, address=os.environ.get("RAY_ADDRESS", "auto"))  # Ray sets it for its jobs
    try:
        driver = JobDriver(study.log, study.state, runner, make_decider(study), owner=owner)
        state = driver.serve()
        logger.info("nothing is left to do: %s", state.reason or "no step asked for more")
    finally:
        runner.close()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
