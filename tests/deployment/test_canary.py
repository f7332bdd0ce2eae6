"""When a canary has to go, and when it has passed: by its figures alone."""

from __future__ import annotations

import time

import pytest

from tune_tasks.delivery import Canary
from tune_tasks.deployment.canary import Figures, objection, percentile
from tune_tasks.deployment.gateway import Gateway


def seen(requests: int, errors: int = 0, latency: float = 0.1) -> Figures:
    return Figures(requests=requests, errors=errors, latencies=(latency,) * (requests - errors))


@pytest.mark.parametrize(
    ("figures", "allowed", "over", "stays"),
    [
        pytest.param(seen(1, 1), 0.0, False, False, id="one failure is too many where none is allowed"),
        pytest.param(seen(10, 1), 0.05, False, True, id="one of ten may still become one of a hundred"),
        pytest.param(seen(10, 6), 0.05, False, False, id="six of ten cannot become five of a hundred"),
        pytest.param(seen(10, 1), 0.05, True, False, id="one of ten is too many at the end"),
        pytest.param(seen(200, 10), 0.05, True, True, id="as many as allowed"),
        pytest.param(seen(200, 11), 0.05, False, False, id="one more than allowed"),
        pytest.param(seen(0), 0.0, True, True, id="nobody asked"),
    ],
)
def test_a_canary_goes_as_soon_as_it_cannot_pass_any_more(
    figures: Figures, allowed: float, over: bool, stays: bool
) -> None:
    assert (objection(figures, Canary(max_errors=allowed), over=over) is None) == stays


def test_a_slow_canary_goes_at_the_end_or_when_it_has_been_asked_often() -> None:
    limit = Canary(max_latency=0.5)
    assert objection(seen(20, latency=0.6), limit, over=False) is None
    assert objection(seen(20, latency=0.4), limit, over=True) is None
    why = "0 of its 20 requests failed, 95 % answered within 0.6 s; at most 0.5 s are allowed"
    assert objection(seen(20, latency=0.6), limit, over=True) == why
    assert objection(seen(100, latency=0.6), limit, over=False) is not None


def test_the_percentile_is_a_value_that_was_seen() -> None:
    assert percentile(range(1, 101), 0.95) == 95
    assert percentile([3.0], 0.95) == 3.0
    assert percentile([], 0.95) is None
    assert percentile([1.0] * 19 + [9.0], 0.95) == 1.0
    assert percentile([1.0] * 18 + [9.0] * 2, 0.95) == 9.0


def test_the_gateway_gives_the_canary_its_share_exactly_and_none_after_its_time() -> None:
    gateway = Gateway("tiny")
    gateway.reconfigure({"canary": {"version": "2"}, "share": 0.25, "until": time.time() + 60})
    assert [gateway._is_due() for _ in range(8)] == [False, False, False, True] * 2
    gateway.reconfigure({"canary": {"version": "2"}, "share": 0.25, "until": time.time() - 1})
    assert not any(gateway._is_due() for _ in range(8))  # whoever watched it has died
