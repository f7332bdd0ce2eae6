"""Measures one model's folder: with the spec's `evaluate`, and by what limits may name: size, latency, training time.

What the user wrote runs here, on a copy of the folder, and what it returns is checked number by number. This module
must not compare models, and must not record anything.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tune_tasks.delivery import Promotion
from tune_tasks.errors import ConfigError, invalid
from tune_tasks.registry.evaluation import Evaluation, Repeat
from tune_tasks.spec import resolve

_CALLS, _PATIENCE = 21, 2.0
"""Calls of predict that are timed, and seconds after which no further one begins."""


def evaluate(
    target: str, near: str | None, folder: Path, *, metric: str, seed: int = 0, data: str | None = None
) -> Repeat:
    """Measures a model with the spec's `evaluate`; what it prints goes to stderr.

    It is called with the folder, and with `seed` and `data` by keyword where it takes them. Raises `ConfigError` where
    it fails, or does not return `metric` and finite numbers by name.
    """
    measure = resolve(target, "promotion.evaluate", near)
    given = _keywords(measure, {"seed": seed, "data": data})
    with _copy(folder) as copy:
        try:
            found = measure(copy, **given)
        except Exception as error:
            raise ConfigError(f"promotion.evaluate: {target!r} raised {type(error).__name__}: {error}") from error
    return _checked(target, found, metric)


def size_of(folder: Path) -> int:
    """Bytes of the files of a model."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def latency(promotion: Promotion, near: str | None, folder: Path) -> float:
    """The median time, in seconds, of one predict on the example's input, in this process and after a first call."""
    if promotion.loader is None or promotion.example is None:
        missing = "loader" if promotion.loader is None else "example"
        raise ConfigError(f"promotion.limits: latency is of the loaded model's predict; give promotion.{missing} too")
    load = resolve(promotion.loader, "promotion.loader", near)
    example = resolve(promotion.example, "promotion.example", near)
    with _copy(folder) as copy:
        try:
            model, given = load(copy), example()
            model.predict(given)
            return statistics.median(_timed(lambda: model.predict(given)))
        except Exception as error:
            raise ConfigError(
                f"promotion.example: the model of {promotion.loader!r} does not predict on what "
                f"{promotion.example!r} returns: {type(error).__name__}: {error}"
            ) from error


def _timed(call: Callable[[], Any]) -> list[float]:
    found: list[float] = []
    until = time.perf_counter() + _PATIENCE
    while not found or (len(found) < _CALLS and time.perf_counter() < until):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


@contextlib.contextmanager
def _copy(folder: Path) -> Iterator[Path]:
    """A copy that user's code may change, with its output out of the way of ours."""
    with tempfile.TemporaryDirectory(prefix="tune-tasks-") as scratch, contextlib.redirect_stdout(sys.stderr):
        yield shutil.copytree(folder, Path(scratch) / folder.name)


def _keywords(measure: Callable[..., Any], known: dict[str, Any]) -> dict[str, Any]:
    """Those of the keywords that a function takes; none where Python cannot tell, as of some built in C."""
    try:
        parameters = inspect.signature(measure).parameters.values()
    except (TypeError, ValueError):
        return {}
    named = {each.name for each in parameters if each.kind in {each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY}}
    every = any(each.kind is each.VAR_KEYWORD for each in parameters)
    return {name: value for name, value in known.items() if every or name in named}


def _checked(target: str, found: object, metric: str) -> Repeat:
    """What was returned as numbers; the mean of the examples where a metric is left out."""
    given = found if isinstance(found, Evaluation) else Evaluation(found)  # type: ignore[arg-type]  # checked below
    if not isinstance(given.metrics, Mapping) or not (given.metrics or given.examples):
        raise ConfigError(f"promotion.evaluate: {target!r} returned {found!r}, must be numbers by name")
    metrics = {str(name): _number(target, name, value) for name, value in given.metrics.items()}
    examples = {
        str(name): [_number(target, f"{name} of example {at}", value) for at, value in enumerate(values)]
        for name, values in given.examples.items()
    }
    for name, values in examples.items():
        if values:
            _same_unit(target, name, metrics.setdefault(name, statistics.fmean(values)), statistics.fmean(values))
    if metric not in metrics:
        raise invalid(
            "promotion.metric", metric, f"{target!r} returned {', '.join(metrics)}; name one of them", metrics
        )
    slices = {str(name): [str(label) for label in labels] for name, labels in given.slices.items()}
    _same_length(target, metric, {**examples, **{f"the slices {name}": labels for name, labels in slices.items()}})
    return Repeat(metrics, examples, slices)


def _number(target: str, name: object, value: object) -> float:
    """A finite number. Text is none, whatever it holds: nobody could tell 97% from 97 and from 0.97."""
    number = math.nan
    if not isinstance(value, str | bytes):
        with contextlib.suppress(TypeError, ValueError):
            number = float(value)  # type: ignore[arg-type]  # what has no float raises
    if not math.isfinite(number):
        raise ConfigError(
            f"promotion.evaluate: {target!r} returned {value!r} for {str(name)!r}, must be a finite number, "
            "without a unit"
        )
    return number


def _same_unit(target: str, name: str, whole: float, mean: float) -> None:
    if not math.isclose(whole, mean, rel_tol=1e-4, abs_tol=1e-9):
        raise ConfigError(
            f"promotion.evaluate: {target!r} returned {whole:.6g} for {name!r}, but the mean of its examples is "
            f"{mean:.6g}; both must be in one unit (leave the number out, and it is their mean)"
        )


def _same_length(target: str, metric: str, columns: Mapping[str, Sequence[Any]]) -> None:
    """Every column has a value for each example, and the metric that decides is one of them."""
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        told = ", ".join(f"{size} for {name}" for name, size in sizes.items())
        raise ConfigError(f"promotion.evaluate: {target!r} returned as many examples as {told}; must be one number")
    if sizes and metric not in columns:
        raise invalid("promotion.metric", metric, f"{target!r} returned examples of {', '.join(columns)} only", columns)
