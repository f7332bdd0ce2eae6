"""The gates of a promotion: what a challenger must pass before it takes the champion's place, each in figures.

Pure, but for the user's own gates, which are called: numbers go in, one `Gate` comes out of each. The bounds come from
the paired bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13: percentiles). This
module must not measure anything, and must not stop at the first gate that says no.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tune_tasks.delivery import Limit
from tune_tasks.errors import ConfigError, invalid
from tune_tasks.events import Gate
from tune_tasks.registry.evaluation import Measured, Summary

RESAMPLES = 10_000
_CELLS = 1 << 21
_LARGEST = 5_000
"""Values above which as many as fit are averaged first, drawn at random: the bound is that of their number all the
same, and the time is not that of 10,000 times a million."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How two models are compared. `candidates`: of how many the challenger is the best; `key` seeds the resampling."""

    metric: str
    mode: Literal["min", "max"]
    min_improvement: float = 0.0
    confidence: float = 0.95
    candidates: int = 1
    key: str = ""

    @property
    def sign(self) -> float:
        """1 where a smaller metric is better, -1 where a larger one is."""
        return 1.0 if self.mode == "min" else -1.0


def bounds(measured: Measured, *, confidence: float, key: str) -> dict[str, tuple[float, float]]:
    """Between what each metric's mean lies, two-sided; only for what has several values, or repeats that differ."""
    tail = (1 - confidence) / 2
    found = {metric: measured.values(metric) for metric in measured.metrics}
    return {
        metric: interval(values, tail, f"{key}/{measured.model}/{metric}")
        for metric, values in found.items()
        if len(values) > 1 and (measured.unit(metric) == "examples" or min(values) < max(values))
    }


def improvement(challenger: Measured, champion: Measured | None, rules: Rules) -> Gate:
    """Asks whether the challenger is better by `min_improvement`, and sure to be: by the lower bound of the gain.

    The challenger was chosen as the best of several on the same data, so the bound is for all of them at once
    (Bonferroni). Where there is one number each, that number decides.
    """
    ours = challenger.metrics[rules.metric]
    if champion is None:
        reason = f"{rules.metric} {ours:.6g} is the first: there is no champion yet"
        return Gate(name="improvement", passed=True, reason=reason, limit=rules.min_improvement)
    theirs = champion.metrics[rules.metric]
    gains = _gains(challenger, champion, rules)
    low, high = interval(gains, (1 - rules.confidence) / rules.candidates, f"{rules.key}/improvement")
    gain = rules.sign * (theirs - ours)
    told = f"{rules.metric} {ours:.6g} is {_than(gain)} the champion's {theirs:.6g} ({_named(champion)})"
    if len(gains) > 1:
        sure = f"at least {low:.6g} better" if low >= 0 else f"{-low:.6g} worse at most"
        best = f" as the best of {rules.candidates}" if rules.candidates > 1 else ""
        told += (
            f"; with {rules.confidence * 100:g}% confidence{best}, over {len(gains)} "
            f"{challenger.unit(rules.metric)}, it is {sure}"
        )
    asked = f"at least {rules.min_improvement:g}" if rules.min_improvement else "more than 0"
    return Gate(
        name="improvement",
        passed=_enough(low, rules.min_improvement),
        reason=f"{told}; {asked} is asked",
        value=gain,
        low=low,
        high=high,
        limit=rules.min_improvement,
    )


def slices(challenger: Measured, champion: Measured | None, rules: Rules, most: float) -> Gate:
    """Asks that the challenger is worse by no more than `most` in no slice of the data: by the slice's mean."""
    if champion is None:
        return Gate(name="slices", passed=True, reason="there is no champion to compare slices with", limit=most)
    labels = challenger.repeats[0].slices
    if not labels:
        raise ConfigError(
            "promotion.slices: evaluate returned no slices; return an Evaluation with slices and examples"
        )
    gains, sums = _gains(challenger, champion, rules), dict[str, list[float]]()
    for name, column in labels.items():
        for label, gain in zip(column, gains, strict=True):
            sums.setdefault(f"{name}={label}", []).append(gain)
    means = {name: math.fsum(values) / len(values) for name, values in sums.items()}
    worst = min(means, key=lambda name: means[name])
    bad = sorted((name for name in means if -means[name] > most and not _same(-means[name], most)), key=means.get)  # type: ignore[arg-type]
    told = [f"{name} ({len(sums[name])} examples) is {_than(means[name])} the champion" for name in bad or [worst]]
    more = f", and {len(told) - 5} more" if len(told) > 5 else ""
    head = f"{len(bad)} of {len(means)} slices are too much worse" if bad else f"of {len(means)} slices the worst"
    return Gate(
        name="slices",
        passed=not bad,
        reason=f"{head}: {', '.join(told[:5])}{more}, in {rules.metric}; {most:g} worse is allowed",
        value=means[worst],
        limit=-most,
    )


def limits(challenger: Measured, asked: Mapping[str, Limit]) -> list[Gate]:
    """Asks that each number of the challenger is within its limit, whoever the champion is."""
    known = challenger.metrics
    found = []
    for name, limit in asked.items():
        if name not in known:
            raise invalid("promotion.limits", name, f"what was measured is {', '.join(known)}", known)
        found.append(_limit(name, known[name], limit))
    return found


def _limit(name: str, value: float, limit: Limit) -> Gate:
    asked = [(word, bound) for word, bound in (("at least", limit.min), ("at most", limit.max)) if bound is not None]
    broken = [bound for word, bound in asked if (value < bound if word == "at least" else value > bound)]
    told = " and ".join(f"{word} {bound:g}" for word, bound in asked)
    return Gate(
        name=f"limits.{name}",
        passed=not broken,
        reason=f"{name} is {value:.6g}; {told} is asked",
        value=value,
        limit=(broken or [bound for _, bound in reversed(asked)])[0],
    )


def own(name: str, call: Callable[..., Any], challenger: Summary, champion: Summary | None) -> Gate:
    """Asks the user's own gate, which returns whether the challenger passes, or that and a reason."""
    try:
        found = call(challenger, champion)
    except Exception as error:
        raise ConfigError(f"promotion.gates: {name!r} raised {type(error).__name__}: {error}") from error
    passed, reason = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if type(passed).__name__ not in {"bool", "bool_"}:
        raise ConfigError(
            f"promotion.gates: {name!r} returned {found!r}, must be True or False, or one of them and a reason"
        )
    told = " ".join(str(reason).split()) if reason else ("passes" if passed else "does not pass, and says no reason")
    return Gate(name=name, passed=bool(passed), reason=f"{name}: {told}")


def verdict(gates: Sequence[Gate]) -> str:
    """Why a challenger is promoted, or each gate that says no, in figures."""
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        return "; ".join(f"{gate.name}: {gate.reason}" for gate in failed)
    more = len(gates) - 1
    others = f"; {more} more gate{'s pass' if more > 1 else ' passes'}" if more else ""
    return f"{gates[0].reason}{others}"


def interval(values: Sequence[float], tail: float, key: str) -> tuple[float, float]:
    """The percentiles `tail` and 1 - `tail` of the mean of resampled values; the same for the same key.

    As many resamples are drawn as leave 100 beyond the percentile, 10,000 at least and 100,000 at most.
    """
    import numpy as np  # a promotion without an evaluation needs no arrays

    data = np.asarray(values, dtype=float)
    if data.min() == data.max():
        return float(data[0]), float(data[0])
    rng = np.random.default_rng(list(hashlib.sha256(key.encode()).digest()))
    if data.size > _LARGEST:
        group = math.ceil(data.size / _LARGEST)
        data = rng.permutation(data)[: data.size // group * group].reshape(-1, group).mean(axis=1)
    total = min(max(RESAMPLES, math.ceil(100 / tail)), 10 * RESAMPLES)
    rows = max(1, _CELLS // data.size)
    means = np.concatenate(
        [
            data[rng.integers(0, data.size, (min(rows, total - start), data.size))].mean(axis=1)
            for start in range(0, total, rows)
        ]
    )
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def check_comparable(models: Sequence[Measured], metric: str) -> None:
    """Makes sure that the models were measured on the same data. Raises `ConfigError` naming who was not."""
    first = models[0]
    for other in models[1:]:
        for seed, (ours, theirs) in enumerate(zip(first.repeats, other.repeats, strict=True)):
            _same_data(
                f"{first.model} and {other.model} (seed {seed})",
                len(ours.examples.get(metric, ())),
                len(theirs.examples.get(metric, ())),
            )
            if {n: list(c) for n, c in ours.slices.items()} != {n: list(c) for n, c in theirs.slices.items()}:
                raise ConfigError(
                    f"promotion.evaluate: not the same data: {first.model} and {other.model} have other slices; "
                    "evaluate has to return the same examples in the same order for every model"
                )
    for seed, repeat in enumerate(first.repeats[1:], start=1):
        here, there = (len(each.examples.get(metric, ())) for each in (first.repeats[0], repeat))
        _same_data(f"the seeds 0 and {seed} of {first.model}", here, there)


def _same_data(who: str, one: int, other: int) -> None:
    if one != other:
        raise ConfigError(
            f"promotion.evaluate: not the same data: {who} have {one} and {other} examples; "
            "evaluate has to measure every model on the same ones"
        )


def _gains(challenger: Measured, champion: Measured, rules: Rules) -> list[float]:
    """How much better the challenger is, pair by pair."""
    pairs = zip(challenger.values(rules.metric), champion.values(rules.metric), strict=True)
    return [rules.sign * (theirs - ours) for ours, theirs in pairs]


def _enough(low: float, asked: float) -> bool:
    return low > 0 if asked == 0 else low > asked or _same(low, asked)


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9)


def _than(gain: float) -> str:
    return f"better by {gain:.6g} than" if gain > 0 else f"worse by {-gain:.6g} than" if gain < 0 else "the same as"


def _named(champion: Measured) -> str:
    return champion.model.replace("-", " ")
