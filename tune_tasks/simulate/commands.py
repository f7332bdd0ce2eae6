"""The command `simulate`: what it takes from the command line, and where its forecast goes.

The forecast goes to stdout, for people or with `--json` for machines. This module must not work anything out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from tune_tasks.errors import ConfigError, invalid
from tune_tasks.sections import Duration
from tune_tasks.simulate.forecast import PREEMPTIBLE, Scenario, simulate
from tune_tasks.simulate.pool import PREEMPTIONS, read_trace
from tune_tasks.simulate.view import show, write
from tune_tasks.spec import StudySpec, load_spec, resolve
from tune_tasks.store.log import StudyLog
from tune_tasks.store.places import study_objects
from tune_tasks.study import StudyState

_ABOUT = (
    "Plays the study with the real sampler, scheduler, driver and log on imagined machines, and says what it would "
    "take. Nothing is run, and nothing is created in the study's store. The same command gives the same forecast."
)
_WHOLE: Mapping[str, str] = {
    "workers": "trials at once (default: budget.concurrency, or 4)",
    "nodes": "machines (default: as many as the workers need)",
    "steps": "steps of an objective to which no scheduler sets a budget (default: 10)",
    "checkpoint_every": "steps between two checkpoints; 0 for none (default: 1)",
    "seed": "another seed draws other times, curves and preemptions (default: 0)",
}
_NUMBERS: Mapping[str, str] = {
    "cpus": "cores of a node (default: what the trials at once need, at most 4)",
    "gpus": "GPUs of a node (default: what a trial needs)",
    "spread": "sigma of the log-normal factor by which the speed of trials differs (default: 0.5)",
    "failures": "share of the attempts that fail (default: 0)",
    "price": "of a node-hour on demand (default: 1)",
    "preemptible_price": f"of a preemptible node-hour (default: {PREEMPTIBLE:g} times the price on demand)",
    "preemptions": f"of a preemptible node, per hour (default: {PREEMPTIONS:.3g}, one a day)",
}
_DURATIONS: Mapping[str, str] = {
    "start_up": "from asking for a node to its first trial (default: 2m)",
    "idle": "without a trial, after which a node is given back until trials wait again (default: 5m)",
    "notice": "between the warning and the end of a preemptible node (default: 30s)",
    "between": "between the launch steps of two rounds (default: 5s)",
}


def add_command(commands: Any, locate: Callable[[str], str], pair: Callable[[str], tuple[str, Any]]) -> None:
    """Adds `simulate` to a parser. `locate` gives the URL of a study, `pair` reads one KEY=VALUE."""
    command = commands.add_parser("simulate", help="what a study would take, before it is run", description=_ABOUT)
    command.add_argument("study", metavar="SPEC", help="a YAML or JSON file")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="replace a value of the spec: budget.trials=8"
    )
    command.add_argument(
        "--step-time", metavar="TIME", help="mean time of a step, as 90s, or module:function of a configuration"
    )
    for names, kind in ((_WHOLE, int), (_NUMBERS, float), (_DURATIONS, str)):
        for name, text in names.items():
            command.add_argument(f"--{name.replace('_', '-')}", dest=name, type=kind, metavar="X", help=text)
    command.add_argument("--trace", metavar="FILE", help="CSV of time,down in seconds: when preemptions come instead")
    command.add_argument("--like", metavar="URL|SPEC", help="a study that was run: its trials say how these go")
    command.add_argument("--plot", metavar="FILE", help="draw into FILE.svg or FILE.html")
    command.add_argument("--json", action="store_true", help="for machines")
    command.set_defaults(command=_simulate, locate=locate, pair=pair)


def _simulate(options: argparse.Namespace) -> int:
    plot = _plot(options.plot)
    spec = load_spec(options.study, dict(options.pair(text) for text in options.set))
    like = _state(options.locate(options.like)) if options.like else None
    forecast = simulate(spec, _scenario(options, spec), like=like)
    if plot is not None:
        write(forecast, plot)
    if options.json:
        sys.stdout.write(orjson.dumps(forecast.to_dict(), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        show(forecast, sys.stdout)
    return 0


def _scenario(options: argparse.Namespace, spec: StudySpec) -> Scenario:
    given = {name: getattr(options, name) for name in (*_WHOLE, *_NUMBERS)}
    given |= {name: _seconds(name, getattr(options, name)) for name in _DURATIONS}
    given["step_time"] = _step_time(options.step_time, spec)
    given["trace"] = read_trace(options.trace) if options.trace else None
    return Scenario(**{name: value for name, value in given.items() if value is not None})


def _step_time(text: str | None, spec: StudySpec) -> Any:
    if text is not None and ":" in text:
        return resolve(text, "--step-time", spec.folder)
    return _seconds("step_time", text)


def _seconds(name: str, text: str | None) -> float | None:
    """A duration as in a spec; 0 too."""
    if text is None or text in {"0", "0s"}:
        return None if text is None else 0.0
    try:
        value: float = TypeAdapter(Duration).validate_python(text)
    except ValidationError:
        raise invalid(f"--{name.replace('_', '-')}", text, "write seconds, or for example 90s, 10m, 1h30m") from None
    return value


def _plot(path: str | None) -> Path | None:
    if path is not None and Path(path).suffix not in {".svg", ".html"}:
        raise invalid("--plot", path, "the file must end in .svg or .html")
    if path is not None and not Path(path).parent.is_dir():
        raise ConfigError(f"--plot: {path!r} is not allowed; there is no folder {str(Path(path).parent)!r}")
    return Path(path) if path is not None else None


def _state(url: str) -> StudyState:
    return StudyLog(study_objects(url)).load()
