"""The command line: the loop, the four tasks, what a person looks at, and what an operator does (`operate.commands`).

JSON goes to stdout, everything for people to stderr, and the exit code tells the error's class (`errors`). This
module must not contain an `if` about tuning: the tasks come from the step table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tune_tasks.errors import ConfigError, TuneError

INTERRUPTED = 130
"""Exit code after Ctrl-C or a polite kill: the study is whole and can be resumed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    logging.getLogger("tune_tasks").setLevel(logging.DEBUG if options.verbose else logging.WARNING)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except TuneError as error:
        if options.verbose:
            logging.getLogger(__name__).exception("%s", type(error).__name__)
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201  # the one line that a person needs
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)  # noqa: T201  # as above
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever reads our output, such as `head`, has seen enough. What Python flushes at its end must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    from tune_tasks import __version__  # at the top it would be a circle

    parser = argparse.ArgumentParser(prog="tune-tasks", description="Hyperparameter tuning as pipeline tasks.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("-v", "--verbose", action="store_true", help="log more, and show tracebacks")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_loop(commands)
    _add_steps(commands)
    _add_views(commands)
    _add_operating(commands)
    return parser


def _add_loop(commands: Any) -> None:
    run = commands.add_parser("run", help="run a study from its spec to a promoted model; again to go on")
    run.add_argument("study", metavar="SPEC", help="a YAML or JSON file")
    _add_overrides(run)
    resume = commands.add_parser("resume", help="go on with a study that was stopped or killed")
    resume.add_argument("study", metavar="URL")
    stop = commands.add_parser("stop", help="stop the Ray job of a study; nothing is lost, resume goes on")
    stop.add_argument("study", metavar="SPEC|URL")
    stop.set_defaults(command=_stop)
    for command in (run, resume):
        command.add_argument("--run", default=None, help="name of this pipeline run (default: main)")
        command.add_argument("--no-promote", action="store_true", help="the search alone: no final training, no model")
        command.set_defaults(command=_run)


def _add_overrides(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="replace a value of the spec: budget.trials=8"
    )
    command.add_argument(
        "--amend",
        action="store_true",
        help="accept changed sections: budget, resources, retry, checkpoints, execution, promotion",
    )


def _add_steps(commands: Any) -> None:
    from tune_tasks.steps import STEPS  # a command that fails to parse needs no engine

    kinds: dict[str, Any] = {"round": int, "count": int}
    for step in (step for step in STEPS.values() if step.command):
        command = commands.add_parser(step.name.replace("_", "-"), help=step.help)
        command.add_argument("study", metavar="SPEC|URL")
        _add_overrides(command)
        for option in step.options:
            command.add_argument(f"--{option}", type=kinds.get(option, str), required=option == "batch")
        command.set_defaults(command=_step, step=step)


def _add_views(commands: Any) -> None:
    status = commands.add_parser("status", help="how a study stands, as JSON")
    status.set_defaults(command=_status)
    report = commands.add_parser("report", help="what was tried, pruned and why")
    report.add_argument("--format", choices=("table", "markdown", "json", "html"), default="table")
    report.set_defaults(command=_report)
    logs = commands.add_parser("logs", help="what a trial printed")
    logs.set_defaults(command=_logs)
    for command in (status, report, logs):
        command.add_argument("study", metavar="URL")
    logs.add_argument("trial", type=int)
    logs.add_argument("--attempt", type=int, default=None, help="by default every attempt, in order")
    schema = commands.add_parser("schema", help="the JSON schema of a spec, or its reference as Markdown")
    schema.add_argument("--format", choices=("json", "markdown"), default="json")
    schema.add_argument("--of", choices=("spec", "model"), default="spec", help="model: of model.json, as JSON")
    schema.set_defaults(command=_schema)


def _add_operating(commands: Any) -> None:
    from tune_tasks.next_week import add_commands as add_next_week
    from tune_tasks.operate.commands import add_commands
    from tune_tasks.promotion.approval import add_commands as add_approval  # as above
    from tune_tasks.promotion.championship import add_commands as add_championship
    from tune_tasks.promotion.leaderboard import add_command as add_leaderboard
    from tune_tasks.simulate.commands import add_command as add_simulate
    from tune_tasks.tracking.commands import add_command as add_track

    add_approval(commands, _open)
    add_championship(commands, _open)
    add_leaderboard(commands, _open)
    add_commands(commands, _locate)
    add_simulate(commands, _locate, _pair)
    add_track(commands, _locate)
    add_next_week(commands, _pair, _finish)


def _locate(source: str) -> str:
    """The URL of the study that a person names by its URL or its spec file, whether there is one or not."""
    from tune_tasks.spec import load_spec
    from tune_tasks.studies import is_spec_file, study_url

    return study_url(load_spec(source)) if is_spec_file(source) else source


def _open(options: argparse.Namespace) -> Any:
    """Opens the study that the command names, with its overrides."""
    from tune_tasks.spec import load_spec
    from tune_tasks.studies import is_spec_file, open_study

    source = options.study
    if getattr(options, "set", None) and not is_spec_file(source):
        raise ConfigError(f"--set: {options.set[0]!r} is not allowed with a URL; it changes a spec file")
    if is_spec_file(source):
        source = load_spec(source, dict(_pair(text) for text in options.set) if hasattr(options, "set") else None)
    return open_study(source, amend=getattr(options, "amend", False))


def _pair(text: str) -> tuple[str, Any]:
    from tune_tasks.spec import read_value

    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set: {text!r} is not allowed; write KEY=VALUE, for example budget.trials=8")
    return key, read_value(value)


def _run(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    return _finish(_open(options), options)


def _finish(study: Any, options: argparse.Namespace) -> int:
    """Runs a study to its promoted model, with progress: where the spec has `final`, that of the final training."""
    from tune_tasks.final import study_to_promote
    from tune_tasks.loop import tune
    from tune_tasks.steps import MAIN, promote_best
    from tune_tasks.tracking.following import catch_up
    from tune_tasks.views.terminal import Progress, conclude

    run = options.run or MAIN
    try:
        with Progress(sys.stderr) as progress:
            tune(study, run=run, on_change=progress.update)
            shipped = None if options.no_promote else study_to_promote(study, on_change=progress.update)
        if shipped is not None:
            catch_up(study)
        model = None if shipped is None else promote_best(shipped, run=run)
    except KeyboardInterrupt:
        study.refresh()
        _say(f"\nStopped; nothing is lost: {_standing(study.state)}. Go on with:\n  tune-tasks resume {study.url}")
        if study.state.requested:
            _say(f"Its Ray job runs on; to end that too:\n  tune-tasks stop {study.url}")
        return INTERRUPTED
    conclude(study.refresh(), study.url, model, sys.stdout)
    return 0


def _stop(options: argparse.Namespace) -> int:
    from tune_tasks.attend import job_name, stop

    study = _open(options)
    stopped = stop(study)
    _print({"study": study.url, "job": job_name(study.state, study.state.job), "stopped": stopped})
    return 0


def _interrupt(*_: object) -> None:
    """Turns a polite kill, such as a preempted node's, into what Ctrl-C does."""
    raise KeyboardInterrupt


def _standing(state: Any) -> str:
    from tune_tasks.study import OVER

    return f"{state.count(*OVER)} of {state.spec.budget.trials} trials are over"


def _step(options: argparse.Namespace) -> int:
    from tune_tasks.steps import perform

    signal.signal(signal.SIGTERM, _interrupt)
    given = {option: getattr(options, option) for option in options.step.options}
    with contextlib.redirect_stdout(sys.stderr):  # what a trial in this process prints must not mix with the JSON
        result = perform(options.step.name, _open(options), **given)
    _print(result)
    return 0


def _status(options: argparse.Namespace) -> int:
    study = _open(options)
    state, best = study.state, study.best
    _print(
        {
            "study": study.url,
            "id": state.study,
            "pipeline": state.pipeline,
            "done": state.done,
            "reason": state.reason,
            "trials": {
                name: state.count(name) for name in ("queued", "running", "paused", "completed", "pruned", "failed")
            },
            "budget": state.spec.budget.model_dump(mode="json"),
            "elapsed": round(state.elapsed, 3),
            "best": {"trial": best.number, "value": best.value, "params": best.params} if best else None,
            "segments": study.log.head,
        }
    )
    return 0


def _report(options: argparse.Namespace) -> int:
    from tune_tasks.views import render

    study = _open(options)
    render(study.state, options.format, sys.stdout)
    return 0


def _logs(options: argparse.Namespace) -> int:
    study = _open(options)
    if not 0 <= options.trial < len(study.trials):
        raise ConfigError(f"trial: {options.trial} is not allowed; there are trials 0 to {len(study.trials) - 1}")
    prefix = f"logs/{options.trial:06d}-" + ("" if options.attempt is None else f"{options.attempt}.txt")
    found = study.objects.list(prefix)
    for key in found:
        _say(f"--- {Path(key).name}")
        sys.stdout.write((study.objects.read(key) or b"").decode(errors="replace"))
    if not found:
        _say(f"Trial {options.trial} printed nothing.")
    return 0


def _schema(options: argparse.Namespace) -> int:
    from tune_tasks import schema

    if options.of == "model":
        _print(schema.model_schema())
    elif options.format == "markdown":
        sys.stdout.write(schema.markdown())
    else:
        _print(schema.schema())
    return 0


def _print(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201  # for people
